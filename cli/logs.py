"""What a stage's commands printed, also while they still print."""

import codecs
import time
from collections.abc import Iterator
from typing import Any

import typer

from cli.client import Api
from cli.errors import Refused, Unreachable
from cli.text import safe

RECONNECT_SECONDS = 2.0


def show_log(api: Api, mission_id: str, stage: str | None, *, follow: bool) -> None:
    """Print a stage's log; of the latest stage that has one, unless `stage` names another."""
    found = _stage(api, mission_id, stage)
    path = f"/missions/{mission_id}/stages/{found['stage']}/log"
    place = {"round": found["round"], "candidate": found["candidate"]}
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    for piece in _pieces(api, path, place, follow=follow):
        typer.echo(safe(decode(piece)), nl=False)
    typer.echo(safe(decode(b"", True)), nl=False)


def _stage(api: Api, mission_id: str, wanted: str | None) -> dict[str, Any]:
    if wanted:
        found: dict[str, Any] = api.get(f"/missions/{mission_id}/stages/{wanted}")
        return found
    stages = api.rows(f"/missions/{mission_id}/stages", None)
    with_log = [stage for stage in stages if stage["status"] == "running" or stage["log_digest"]]
    if not with_log:
        raise Refused("no_log", f"no command of {mission_id} has printed anything yet")
    return with_log[-1]


def _pieces(api: Api, path: str, place: dict[str, int], *, follow: bool) -> Iterator[bytes]:
    """The log's bytes, each once: a connection that breaks is taken up where it broke."""
    offset = 0
    while True:
        try:
            with api.stream(path, offset=offset, follow="true" if follow else None, **place) as pieces:
                for piece in pieces:
                    offset += len(piece)
                    yield piece
            return
        except Unreachable:
            if not follow:
                raise
            time.sleep(RECONNECT_SECONDS)
