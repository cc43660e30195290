"""Refusals that come from several places, each in one wording: what is wrong, and what to do next."""

from datetime import date

from models.domain.budgets import LOOP
from models.domain.errors import Conflict, InvalidInput, NotFound

_LISTED = {
    "audit row": ("audit_not_found", "/audit"),
    "CAPA": ("capa_not_found", "/capa"),
    "note": ("memory_not_found", "/memory"),
    "version {} of the policy": ("policy_version_not_found", "/policy/versions"),
}
"""Codes and lists of what is not called in them as in a sentence; braces are the place of a name within its noun."""


def missing(noun: str, name: str | int) -> NotFound:
    """Say that the caller's workspace has no such thing, and where what it has is listed."""
    code, place = _LISTED.get(noun, (f"{noun}_not_found", f"/{noun}s"))
    called = noun.format(name) if "{}" in noun else f"{noun} {name!r}"
    return NotFound(code, f"there is no {called}; `GET {place}` lists what there is")


def no_workspace(name: str) -> NotFound:
    """Say of a workspace that a key does not open what is said of one that is not there."""
    return NotFound("workspace_not_found", f"there is no workspace {name!r} that this key opens")


def require_order(since: date | None, until: date | None, names: tuple[str, str] = ("since", "until")) -> None:
    """Refuse a time that ends before it begins: that nothing was in it would say nothing.

    Raises:
        InvalidInput: `invalid_input`.
    """
    if since and until and since > until:
        first, last = names
        told = f"{since.isoformat()} is after `{last}`, {until.isoformat()}: give the earlier one as `{first}`"
        raise InvalidInput("invalid_input", f"query.{first}: {told}")


def run_ended() -> Conflict:
    """Refuse to go on with a run that is over."""
    return Conflict(
        "run_ended", "the run has ended, and nothing of it changes any more; `POST /runs` starts another one"
    )


def run_blocked(reason: str | None, by: str | None) -> Conflict:
    """Refuse to go on with a run that a limit or a loop holds, and to call such a run a success."""
    hint = "a loop never goes on: end" if by == LOOP else "wait until it may go on, or end"
    return Conflict("run_blocked", f"the run is blocked: {reason}; {hint} it as failed or blocked", blocked_by=by)


def mission_ended() -> Conflict:
    """Refuse to begin anything more for a mission that is over."""
    told = "the mission has ended, and nothing more is begun for it: settle what was begun, and end its runs, if any"
    return Conflict("mission_ended", told)
