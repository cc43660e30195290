"""How a mission's question was answered, in the words that whoever filed the mission reads."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from models.domain.names import POLICY
from models.domain.states import DecisionStatus
from models.domain.wording import shortened

Given = Sequence[dict[str, Any]]
"""What people answered, the first first: `by` whom, the `decision` of each, its `explanation`, whether it `counts`."""
MAX_REASON = 1_000
"""Characters: a thousand rules of 300 characters each may have fired."""


class Asked(Protocol):
    """What the words depend on. `resolved_by` is of the last who answered, and so is the `explanation`.

    Of `question` it is what it `rests_on`, of `terms` how many `people` it takes.
    """

    status: str
    question: dict[str, Any]
    terms: dict[str, Any]
    reasons: list[str]
    requested_at: datetime
    expires_at: datetime | None
    resolved_by: str | None
    explanation: str | None
    single_operator: bool


def reason(asked: Asked, given: Given) -> str:
    """Say who answered a question and how, or why nobody's answer counts; nothing of one that waits."""
    if earlier := asked.question.get("rests_on"):
        return stands(earlier)
    match status := DecisionStatus(asked.status):
        case DecisionStatus.PENDING:
            return ""
        case DecisionStatus.EXPIRED:
            return _in_vain(asked, given)
        case DecisionStatus.CANCELED:
            return f"canceled by {asked.resolved_by}" + (f", {_counted(asked, given)}" if given else "")
    said = f": {words}" if (words := asked.explanation or _rules(asked, status)) else ""
    alone = " (who asked for it: nobody else of the workspace could)" if asked.single_operator else ""
    last = (asked.resolved_by, asked.status)
    before = _told([one for one in given if (one["by"], one["decision"]) != last])
    return f"{status.value} by {asked.resolved_by}{alone}{said}" + (f" (after {before})" if before else "")


def stands(earlier: Mapping[str, Any]) -> str:
    """Say that an earlier approval is enough: it bound all that this one would."""
    who = _approvers(earlier["answers"])
    return f"approved by {who} in {earlier['decision_id']}, which stands: same files, configuration and policy"


def asked_again(decision_id: str, given: Given, differences: Sequence[str]) -> str:
    """Say what differs by now from what an earlier approval bound."""
    other = ", ".join(differences)
    return f"approved by {_approvers(given)} in {decision_id}, which stands no more; what differs by now: {other}"


def _rules(asked: Asked, status: DecisionStatus) -> str:
    """Give the sentences of the rules by which the policy denied; whoever filed a mission may see nothing else."""
    is_denied = status is DecisionStatus.DENIED and asked.resolved_by == POLICY
    return shortened("; ".join(asked.reasons), MAX_REASON) if is_denied else ""


def _in_vain(asked: Asked, given: Given) -> str:
    """Say that time was over before all had approved who must; one who denies would have ended it."""
    minutes = (asked.expires_at - asked.requested_at).total_seconds() / 60 if asked.expires_at else 0
    who = _counted(asked, given) if given else "nobody answered"
    return f"{who} within {round(minutes, 4):g} min (the mission's `approval_timeout_minutes`)"


def _counted(asked: Asked, given: Given) -> str:
    return f"{len(_counting(given))} of {asked.terms['people']} approved ({_told(given)})"


def _counting(given: Given) -> Given:
    """Leave out who was removed or lowered before the question closed."""
    return [one for one in given if _counts(one)]


def _told(given: Given) -> str:
    return "; ".join(f"{one['by']}{'' if _counts(one) else ' (counts no more)'}: {one['explanation']}" for one in given)


def _counts(one: Mapping[str, Any]) -> bool:
    return bool(one.get("counts", True))


def _approvers(given: Given) -> str:
    return " and ".join(one["by"] for one in _counting(given))
