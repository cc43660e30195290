"""What a mission's commands printed, also while they still print."""

import codecs
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

import typer

from cli.client import Api
from cli.errors import Refused, Unreachable
from cli.printed import readable
from cli.text import line
from cli.watch import commands, said, states

LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 2.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Whose log is wanted, as far as its reader says: which stage, of which round and which candidate."""

    stage: str | None = None
    round: int | None = None
    candidate: int | None = None

    def has(self, stage: Json) -> bool:
        """Whether a stage's record is of this round and candidate."""
        return self.round in (None, stage["round"]) and self.candidate in (None, stage["candidate"])


def show_log(api: Api, mission_id: str, place: Place, *, follow: bool, as_json: bool) -> None:
    """Print a stage's log, or without a stage that of the latest which has one; `follow` goes on while it grows.

    With `follow` and without a stage, all stages follow one another until the mission has ended.
    """
    if follow:
        Thread(target=_tell_commands, args=(api, mission_id), daemon=True).start()
    if place.stage:
        named = f"/missions/{mission_id}/stages/{place.stage}"
        found = api.get(named, round=place.round, candidate=place.candidate)
        if not _print(api, mission_id, found, follow=follow, as_json=as_json):
            raise Refused("no_log", f"stage {found['number']} {found['stage']} has no log: it has printed nothing")
    elif follow:
        _follow_all(api, mission_id, place, as_json=as_json)
    else:
        _show_latest(api, mission_id, place, as_json=as_json)


def _tell_commands(api: Api, mission_id: str) -> None:
    """Say beside the log what people say to the mission from now on, until it has ended, or the log has."""
    known: list[Json] | None = None
    with suppress(Refused, RuntimeError):  # the connection was closed: nobody follows any more
        for mission, _ in states(api, mission_id, lambda _: None):
            told = commands(mission)
            for event in told[len(told if known is None else known) :]:
                typer.secho(f"[mission-control] {said(event)}", fg="yellow", err=True)
            known = told


def _show_latest(api: Api, mission_id: str, place: Place, *, as_json: bool) -> None:
    """Print the latest log; a stage that runs may have none, and whether it has, only its log tells."""
    stages = list(filter(place.has, api.rows(f"/missions/{mission_id}/stages", None)))
    with_log = (stage for stage in reversed(stages) if stage["status"] == "running" or stage["log_digest"])
    if not any(_print(api, mission_id, stage, follow=False, as_json=as_json) for stage in with_log):
        raise Refused("no_log", f"no command of {mission_id} has printed anything there yet")


def _follow_all(api: Api, mission_id: str, place: Place, *, as_json: bool) -> None:
    shown: set[tuple[object, ...]] = set()
    while True:
        ended = api.get(f"/missions/{mission_id}")["outcome"]
        for stage in filter(place.has, api.rows(f"/missions/{mission_id}/stages", None)):
            key = (stage["round"], stage["candidate"], stage["stage"])
            if key not in shown:
                shown.add(key)
                typer.secho(f"{line(stage['number'])} {line(stage['stage'])}", bold=True, err=True)
                _print(api, mission_id, stage, follow=True, as_json=as_json)
        if ended:
            return
        time.sleep(LOOK_SECONDS)


def _print(api: Api, mission_id: str, stage: Json, *, follow: bool, as_json: bool) -> bool:
    """Print a stage's log; whether there was any."""
    printed = False
    texts = _decoded(_pieces(api, mission_id, stage, follow=follow))
    for text in texts if as_json else readable(texts):
        typer.echo(_in_json(stage, text) if as_json else text, nl=as_json)
        printed = printed or bool(text)
    return printed


def _decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    for piece in pieces:
        if text := decode(piece):
            yield text
    if rest := decode(b"", True):
        yield rest


def _in_json(stage: Json, text: str) -> str:
    place = {name: stage[name] for name in ("stage", "number", "round", "candidate")}
    return json.dumps(place | {"text": text})


def _pieces(api: Api, mission_id: str, stage: Json, *, follow: bool) -> Iterator[bytes]:
    """The log's bytes, each once: a connection that breaks is taken up where it broke."""
    path = f"/missions/{mission_id}/stages/{stage['stage']}/log"
    place = {"round": stage["round"], "candidate": stage["candidate"], "follow": "true" if follow else None}
    offset = 0
    while True:
        try:
            with api.stream(path, offset=offset, **place) as pieces:
                for piece in pieces:
                    offset += len(piece)
                    yield piece
            return
        except Unreachable:
            if not follow:
                raise
            time.sleep(RECONNECT_SECONDS)
