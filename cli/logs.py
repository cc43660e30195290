"""What a mission's commands printed, also while they still print."""

import codecs
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from cli.client import Api
from cli.errors import Refused, Unreachable
from cli.printed import readable
from cli.text import line

LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 2.0

Json = dict[str, Any]


def show_log(api: Api, mission_id: str, stage: str | None, *, follow: bool, as_json: bool) -> None:
    """Print a stage's log, or without `stage` that of the latest which has one; `follow` goes on while it grows.

    With `follow` and without `stage`, all stages follow one another until the mission has ended.
    """
    if stage:
        found = api.get(f"/missions/{mission_id}/stages/{stage}")
        if not _print(api, mission_id, found, follow=follow, as_json=as_json):
            raise Refused("no_log", f"stage {found['number']} {found['stage']} has no log: it has printed nothing")
    elif follow:
        _follow_all(api, mission_id, as_json=as_json)
    else:
        _print(api, mission_id, _latest(api, mission_id), follow=False, as_json=as_json)


def _latest(api: Api, mission_id: str) -> Json:
    stages = api.rows(f"/missions/{mission_id}/stages", None)
    with_log = [stage for stage in stages if stage["status"] == "running" or stage["log_digest"]]
    if not with_log:
        raise Refused("no_log", f"no command of {mission_id} has printed anything yet")
    return with_log[-1]


def _follow_all(api: Api, mission_id: str, *, as_json: bool) -> None:
    shown: set[tuple[object, ...]] = set()
    while True:
        ended = api.get(f"/missions/{mission_id}")["outcome"]
        for stage in api.rows(f"/missions/{mission_id}/stages", None):
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
