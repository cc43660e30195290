"""Who would have been asked about past acts is compared only where somebody would have been."""

from datetime import UTC, datetime

import pytest

from models.domain.actions import CALL_UNPRICED, FORCE_ROLLBACK, MERGE, START, WRITE_MEMORY
from models.domain.policy import Outcome, parse_policy
from models.domain.replaying import replay
from models.tables.policies import VerdictRow

RULES = """
rules:
  - {rule: ask-agents, because: an agent asks, when: {kind: agent}, ask: {role: operator}}
resolve:
  "*": {role: %s}
"""


@pytest.mark.parametrize(
    ("action", "compared"),
    [(MERGE, 1), (FORCE_ROLLBACK, 1), (WRITE_MEMORY, 1), ("bash", 1), (START, 0), (CALL_UNPRICED, 0)],
)
def test_only_of_what_is_asked_about(action: str, compared: int) -> None:
    before, after = (parse_policy(RULES % role) for role in ("operator", "admin"))
    tried = replay([asked(action)], {1: before}, after)
    assert (tried.judged, tried.changes.total()) == (1, compared)


def asked(action: str) -> VerdictRow:
    who = {"name": "bot", "kind": "agent", "level": "specialist"}
    return VerdictRow(
        workspace_id="w",
        verdict_id="v",
        at=datetime.now(UTC),
        action=action,
        policy_version=1,
        risk="YELLOW",
        outcome=Outcome.ASK,
        reasons=["an agent asks"],
        rules=["ask-agents"],
        input={"action": action, "principal": who, "context": {"env": "dev"}},
    )
