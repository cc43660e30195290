"""What a mission's commands printed, also while they still print."""

import codecs
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer

from cli.client import Api
from cli.errors import Refused, Unreachable
from cli.text import line, safe

LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 2.0

Json = dict[str, Any]


Write = Callable[[Json, str], None]


def show_log(api: Api, mission_id: str, stage: str | None, *, follow: bool, as_json: bool) -> None:
    """Print a stage's log, or without `stage` that of the latest which has one; `follow` goes on while it grows.

    With `follow` and without `stage`, all stages follow one another until the mission has ended.
    """
    write = _write_json if as_json else _write_text
    if stage:
        _print(api, mission_id, api.get(f"/missions/{mission_id}/stages/{stage}"), write, follow=follow)
    elif follow:
        _follow_all(api, mission_id, write)
    else:
        _print(api, mission_id, _latest(api, mission_id), write, follow=False)


def _latest(api: Api, mission_id: str) -> Json:
    stages = api.rows(f"/missions/{mission_id}/stages", None)
    with_log = [stage for stage in stages if stage["status"] == "running" or stage["log_digest"]]
    if not with_log:
        raise Refused("no_log", f"no command of {mission_id} has printed anything yet")
    return with_log[-1]


def _follow_all(api: Api, mission_id: str, write: Write) -> None:
    shown: set[tuple[object, ...]] = set()
    while True:
        ended = api.get(f"/missions/{mission_id}")["outcome"]
        for stage in api.rows(f"/missions/{mission_id}/stages", None):
            key = (stage["round"], stage["candidate"], stage["stage"])
            if key not in shown:
                shown.add(key)
                typer.secho(f"{line(stage['number'])} {line(stage['stage'])}", bold=True, err=True)
                _print(api, mission_id, stage, write, follow=True)
        if ended:
            return
        time.sleep(LOOK_SECONDS)


def _print(api: Api, mission_id: str, stage: Json, write: Write, *, follow: bool) -> None:
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    for piece in _pieces(api, mission_id, stage, follow=follow):
        write(stage, decode(piece))
    write(stage, decode(b"", True))


def _write_text(stage: Json, text: str) -> None:
    typer.echo(safe(text), nl=False)


def _write_json(stage: Json, text: str) -> None:
    place = {name: stage[name] for name in ("stage", "number", "round", "candidate")}
    if text:
        typer.echo(json.dumps(place | {"text": text}))


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
