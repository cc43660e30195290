"""The kinds of failure that Mission Control names. One that a single module knows stands there, as one of these.

MissionControlError
├── InvalidInput            422  the request is understood and refused
├── NotFound                404  also for another workspace's object
├── Conflict                409  the state does not allow it now
│   └── IllegalTransition   409
├── Gone                    410  it was there, and was taken away for good
├── NotPermitted            403
├── Unauthenticated         401
├── TooSlow                 408  the request did not all come in time
├── TooLarge                413
├── RateLimited             429  too many requests, streams or bytes; `wait_seconds` says when to try again
├── Unavailable             503  a part we need is not there; try again
├── Misconfigured           a setting is missing or wrong: nothing starts until somebody mends it
├── StageFailed             the mission's own work is at fault: a verdict, never retried
└── WorkbenchLost           the host that held the worktree is gone; open another

`code` is the stable word clients match on, `retryable` tells Temporal whether another try can help. Both cross the
wire: workers raise `ApplicationError(type=code, non_retryable=not retryable)`.
"""

from typing import Any, ClassVar

from models.domain.wording import shortened

MAX_MESSAGE = 4000
"""Characters of a message: many quote a name that somebody sent, and a name may be as long as a body."""


class MissionControlError(Exception):
    """Root of the tree. Raise a subclass with a code of its own: `NotFound("mission_not_found", "…")`."""

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, code: str, message: str, **details: Any) -> None:
        self.code = code
        self.message = shortened(message, MAX_MESSAGE)
        super().__init__(self.message)
        self.details = details


class InvalidInput(MissionControlError):
    """The caller sent something that can never be right."""

    status = 422


class TooSlow(MissionControlError):
    """The caller stopped in the middle of a request."""

    status = 408
    retryable = True


class TooLarge(MissionControlError):
    """A body, patch or field is over its limit."""

    status = 413


class RateLimited(MissionControlError):
    """The caller's key, or address, has no requests, streams or bytes left for now."""

    status = 429
    retryable = True


class NotFound(MissionControlError):
    """No such object in the caller's workspace."""

    status = 404


class Gone(MissionControlError):
    """It was there and was taken away for good; the message says why."""

    status = 410


class Conflict(MissionControlError):
    """Right in itself, but not in the present state."""

    status = 409


class IllegalTransition(Conflict):
    """A state machine of `models.domain.states` has no such arrow."""


class NotPermitted(MissionControlError):
    """The caller is known and may not do this."""

    status = 403


class Unauthenticated(MissionControlError):
    """No key, or one that is unknown, revoked or expired."""

    status = 401


class Unavailable(MissionControlError):
    """A server, worker or tool we depend on does not answer."""

    status = 503
    retryable = True


class Misconfigured(MissionControlError):
    """A setting is missing or cannot be right; the message names the variable."""


class StageFailed(MissionControlError):
    """A pipeline stage did not pass, for a reason that its evidence names."""

    status = 409


class WorkbenchLost(MissionControlError):
    """A worktree or commit is not on this host (any more): another try makes it again from what is stored."""

    status = 409
    retryable = True


def nothing_to_change(*may: str) -> InvalidInput:
    """Refuse a change of nothing."""
    return InvalidInput("nothing_to_change", f"say what to change: {', '.join(may)}")
