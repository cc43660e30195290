"""How an agent comes to be one, what holds it, and when its silence is told (requirements 4.5, 4.6, 5.2)."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from shlex import quote

from models.domain.errors import Conflict, IllegalTransition, NotPermitted, Unauthenticated, nothing_to_change
from models.domain.roles import roles_of
from models.domain.states import require_transition

MAX_PENDING = 200
"""Registrations that wait, of all strangers or of one with a key: anyone may file them, and people must read them."""
STALE_SECONDS = 90
"""Without a heartbeat for so long, an agent is offered no work."""
LOST_SECONDS = 300


class Registration(StrEnum):
    """Whether an agent may act here."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    DEACTIVATED = "deactivated"


class AgentStatus(StrEnum):
    """What an approved agent may do: only an active one is offered work, a stopped one has no keys."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAINED = "drained"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


class Silence(StrEnum):
    """For how long an agent has not been heard of."""

    NONE = "none"
    STALE = "stale"
    LOST = "lost"


MAX_OPEN_MISSIONS = 100
"""Missions of an agent's filing that have not ended: they stand before the less severe ones of others."""


class Latitude(IntEnum):
    """How far a request of an agent goes; whoever may go so far may also do what is less."""

    NOTHING = 0
    LIVE = 1
    """Say that it lives."""
    LOOK = 2
    REPORT = 3
    """Tell of what it did: pay for it, give back what was reserved, end it."""
    FINISH = 4
    """Go on with what it has begun, or what is assigned to it."""
    BEGIN = 5


class Verb(StrEnum):
    """What a human tells an agent to be."""

    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    QUARANTINE = "quarantine"
    STOP = "stop"


REGISTRATION_TRANSITIONS: dict[Registration, frozenset[Registration]] = {
    Registration.PENDING: frozenset({Registration.APPROVED, Registration.REJECTED}),
    Registration.APPROVED: frozenset({Registration.DEACTIVATED}),
    Registration.REJECTED: frozenset(),
    Registration.DEACTIVATED: frozenset(),
}

_S = AgentStatus
AGENT_TRANSITIONS: dict[AgentStatus, frozenset[AgentStatus]] = {
    _S.ACTIVE: frozenset({_S.PAUSED, _S.DRAINED, _S.QUARANTINED, _S.STOPPED}),
    _S.PAUSED: frozenset({_S.ACTIVE, _S.QUARANTINED, _S.STOPPED}),
    _S.DRAINED: frozenset({_S.ACTIVE, _S.QUARANTINED, _S.STOPPED}),
    _S.QUARANTINED: frozenset({_S.PAUSED, _S.STOPPED}),
    _S.STOPPED: frozenset({_S.ACTIVE}),
}
ADMINS_ONLY = frozenset({(_S.QUARANTINED, _S.PAUSED), (_S.STOPPED, _S.ACTIVE)})

GOES = {
    _S.ACTIVE: Latitude.BEGIN,
    _S.DRAINED: Latitude.FINISH,
    _S.PAUSED: Latitude.REPORT,
    _S.QUARANTINED: Latitude.LIVE,
    _S.STOPPED: Latitude.NOTHING,
}
"""How far an agent may go: held ones begin nothing, and a quarantined one is not even to look around (4.6, V-33)."""

_LEADS_TO = {
    Verb.PAUSE: _S.PAUSED,
    Verb.DRAIN: _S.DRAINED,
    Verb.QUARANTINE: _S.QUARANTINED,
    Verb.STOP: _S.STOPPED,
}
_RESUMES_AS = {_S.QUARANTINED: _S.PAUSED}
"""Out of quarantine nobody goes straight back to work."""


def require_latitude(name: str, status: AgentStatus | None, wanted: Latitude) -> None:
    """Refuse what goes further than a held agent may; who has no status is no agent that was let in.

    Raises:
        Conflict: `agent_not_active`.
    """
    if status is not None and wanted > GOES[status]:
        to = _RESUMES_AS.get(status, AgentStatus.ACTIVE)
        who = "an admin" if (status, to) in ADMINS_ONLY else "an operator or admin"
        raise Conflict("agent_not_active", f"{name!r} is {status.value}: {who} must resume it first")


def require_approved(name: str, registration: str) -> None:
    """Refuse to go on with an agent that may not act, yet or any more.

    Raises:
        Conflict: `agent_not_approved`.
    """
    if registration != Registration.APPROVED:
        raise _not_approved(name, registration)


def require_not_rejected(name: str, registration: str) -> None:
    """Refuse to change by a rejected registration what goes by an agent's name: somebody else may have it by now.

    Raises:
        Conflict: `agent_not_approved`.
    """
    if registration == Registration.REJECTED:
        raise _not_approved(name, registration)


def require_unspent(name: str, registration: str, fetched_at: datetime | None) -> None:
    """Refuse the token of a registration once it has given its key, or its agent has ended.

    It still tells whoever was rejected of that.

    Raises:
        Unauthenticated: `registration_token_spent`.
    """
    if registration == Registration.DEACTIVATED:
        raise Unauthenticated(
            "registration_token_spent", f"{name!r} was deactivated: this token opens nothing any more"
        )
    if fetched_at is not None:
        told = f"this token has given the key of {name!r} and opens nothing any more: send the key; an admin makes"
        raise Unauthenticated("registration_token_spent", f"{told} another (`POST /agents/{name}/rotate-key`)")


def require_not_ended(name: str, registration: str) -> None:
    """Refuse, besides, to change how far an agent may go that goes nowhere any more.

    Raises:
        Conflict: `agent_not_approved`.
    """
    if registration in (Registration.REJECTED, Registration.DEACTIVATED):
        raise _not_approved(name, registration)


def require_undecided(name: str, registration: str, by: str | None, at: datetime | None) -> None:
    """Refuse to answer a registration twice.

    Raises:
        IllegalTransition: who answered first, what and when.
    """
    if registration in (Registration.APPROVED, Registration.REJECTED):
        when = at.astimezone(UTC).isoformat(timespec="seconds") if at else None
        raise IllegalTransition(
            "illegal_transition",
            f"the registration of {name!r} was {registration} by {by} already, at {when}; "
            "`GET /decisions?status=pending` lists what waits",
            current=registration,
            resolved_by=by,
            resolved_at=when,
        )


def name_taken(name: str, registration: str | None) -> Conflict:
    """Refuse the name of an agent that is registered here, or asks to be."""
    if registration == Registration.PENDING:
        waits = f"waits to be let in: `mission-control agent approve {quote(name)} --reason WHY` does that"
        return Conflict("agent_exists", f"an agent {name!r} {waits}; or take another name")
    return Conflict("agent_exists", f"an agent {name!r} is registered here already; take another name")


def _not_approved(name: str, registration: str) -> Conflict:
    helps = _HELPS[Registration(registration)].format(name)
    return Conflict("agent_not_approved", f"the registration of {name!r} is {registration}: {helps}")


_HELPS = {
    Registration.PENDING: "an admin approves it (`POST /agents/{}/approve`)",
    Registration.REJECTED: "it may register again (`POST /agents`)",
    Registration.DEACTIVATED: "it acts no more; register another agent, of another name (`POST /agents`)",
}


def require_at_work(name: str, agent_id: str, registration: str, status: str | None, *, is_fresh: bool) -> None:
    """Tell an agent why it is offered no work, where that is because of how it stands itself.

    Raises:
        Conflict: `agent_not_approved`, `agent_not_active`, `agent_stale`.
    """
    require_approved(name, registration)
    if status != AgentStatus.ACTIVE:
        raise Conflict("agent_not_active", f"{name!r} is {status}; only active agents are offered work")
    if not is_fresh:
        hint = f"send `POST /agents/{agent_id}/heartbeat` more often than every {STALE_SECONDS} seconds"
        raise Conflict("agent_stale", f"{name!r} was not heard of, and is offered no work: {hint}")


def too_many_claims(name: str, most: int) -> Conflict:
    """Say that an agent is to begin what it has taken before it is given more."""
    told = f"{name!r} has taken {most} missions that it has not begun (`GET /missions?assigned_to=…&status=open`)"
    return Conflict("too_many_claims", f"{told}: begin one, or ask an operator to cancel what it cannot do")


OWN, OF_ADMINS = ("endpoint", "capabilities"), ("level", "tools", "daily_cap_usd", "run_cap_usd")
"""What an agent may change of itself, and what only admins change of one."""


def require_may_change(
    had: Iterable[str], changed: Collection[str], capabilities: Iterable[str], *, by_admin: bool
) -> None:
    """Refuse a change of nothing, and an agent's own of what is for admins, as are capabilities beyond what it `had`.

    Raises:
        InvalidInput: `nothing_to_change`.
        NotPermitted: `admins_only`.
    """
    if not changed:
        raise nothing_to_change(*OWN, *(OF_ADMINS if by_admin else ()))
    if not by_admin and not set(OF_ADMINS).isdisjoint(changed):
        raise NotPermitted("admins_only", "an agent sets neither its own level, tools nor caps: ask an admin")
    if not by_admin:
        require_no_new_roles(had, capabilities)


def require_no_new_roles(had: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse an agent's own capabilities beyond those that an admin has approved; it may give some up.

    Raises:
        NotPermitted: `admins_only`.
    """
    granted = {role for capability in had for role in roles_of(capability)}
    if more := sorted({*wanted} - granted):
        told = f"an agent may give up capabilities, not add them: an admin may add {', '.join(more)}"
        raise NotPermitted("admins_only", told)


def obey(verb: Verb, current: AgentStatus, *, by_admin: bool) -> AgentStatus:
    """Tell what an agent becomes.

    Raises:
        IllegalTransition: the table has no such arrow.
        NotPermitted: it has, for admins.
    """
    to = _LEADS_TO.get(verb) or _RESUMES_AS.get(current, _S.ACTIVE)
    if verb is Verb.RESUME and current is _S.ACTIVE:
        raise IllegalTransition("illegal_transition", "the agent is active already", current=current.value)
    require_transition(AGENT_TRANSITIONS, current, to)
    if (current, to) in ADMINS_ONLY and not by_admin:
        raise NotPermitted("admins_only", f"from {current.value} to {to.value} is for an admin: ask one")
    return to
