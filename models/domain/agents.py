"""How an agent comes to be one, what holds it, and when its silence is told (requirements 4.5, 4.6, 5.2)."""

from enum import StrEnum

from models.domain.errors import IllegalTransition, NotPermitted
from models.domain.states import require_transition

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

_LEADS_TO = {
    Verb.PAUSE: _S.PAUSED,
    Verb.DRAIN: _S.DRAINED,
    Verb.QUARANTINE: _S.QUARANTINED,
    Verb.STOP: _S.STOPPED,
}
_RESUMES_AS = {_S.QUARANTINED: _S.PAUSED}
"""Out of quarantine nobody goes straight back to work."""


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
