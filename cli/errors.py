"""What can go wrong for the user of a command, how it is told, and with which exit code."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from models.domain.errors import Misconfigured, MissionControlError

REFUSED, WRONG, UNREACHABLE = 1, 2, 3
EXIT_CODES = (
    "Exit codes: 0 done, 1 refused (with the reason and a request id) or not printed, 2 wrong usage, 3 not reachable."
)

OPTIONS = {
    "cap_tokens": "--tokens",
    "cap_usd": "--usd",
    "expires_in_days": "--days",
    "explanation": "--reason",
    "grace_hours": "--grace",
    "group_by": "--by",
    "rate_per_minute": "--rate",
    "source": "FILE",
}
"""What a command calls otherwise than the API does; a mission's file speaks as the API."""
_LISTS = re.compile(
    r"`GET /(?:workspaces/[^/`]+/)?(agent|alert|audit|decision|key|member|memory|mission|principal|run|workspace)s?"
    r"(?:\?status=(\w+))?`"
)
_NAMED = (
    (re.compile("`GET /policy/versions`"), "`mission-control policy versions`"),
    (re.compile(r"`POST /agents/([^/`]+)/(approve|rotate-key)`"), r"`mission-control agent \2 \1`"),
    (re.compile("`POST /agents`"), "`mission-control agent register`"),
    (re.compile("`PUT /budgets`"), "`mission-control budget set`"),
    (re.compile(r"send `POST /agents/[^/`]+/heartbeat`"), "let the agent send heartbeats"),
    (
        re.compile(r"`GET /missions\?assigned_to=…&status=open`"),
        "`mission-control mission list --assigned-to NAME --status open`",
    ),
)
_PLACE = re.compile(r"(^|; )(?:body|query)(?:: |\.(\w+))")


class Refused(Exception):
    """The API said no; `request_id` finds the reason in its log."""

    def __init__(self, code: str, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.request_id = code, message, request_id


class Unreachable(Exception):
    """Nothing that speaks our protocol answers at the address; the message says what to do."""


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """End the command with the error's message and exit code, instead of a traceback."""
    try:
        yield
    except Refused as refusal:
        message = _as_typed(refusal.message) if refusal.code == "invalid_input" else refusal.message
        _tell(refusal.code, _as_commands(message), refusal.request_id, as_json)
        raise typer.Exit(REFUSED) from None
    except MissionControlError as error:
        _tell(error.code, error.message, "", as_json)
        raise typer.Exit(WRONG if isinstance(error, Misconfigured) else REFUSED) from None
    except Unreachable as error:
        _tell("unreachable", str(error), "", as_json)
        raise typer.Exit(UNREACHABLE) from None


def _as_typed(message: str) -> str:
    """Name options as they are typed, where the API names the fields of its request."""
    return _PLACE.sub(lambda found: found[1] + OPTIONS.get(found[2], found[2] or ""), message)


def _as_commands(message: str) -> str:
    """Name the command, where the API names its route to what helps."""
    message = _LISTS.sub(_listing, message)
    for route, command in _NAMED:
        message = route.sub(command, message)
    return message


def _listing(found: re.Match[str]) -> str:
    """Name the command that lists the same; decisions that wait are what it lists without options."""
    noun, status = found.groups()
    option = f" --status {status}" if status and (noun, status) != ("decision", "pending") else ""
    return f"`mission-control {noun} list{option}`"


def _tell(code: str, message: str, request_id: str, as_json: bool) -> None:
    from cli.text import line, safe

    if as_json:
        error = {"code": code, "message": message, "requestId": request_id}
        typer.echo(json.dumps({"success": False, "error": error}), err=True)
        return
    typer.secho(f"{line(code)}: {safe(message)}", fg="red", err=True)
    if request_id:
        typer.secho(f"request {line(request_id)}", dim=True, err=True)
