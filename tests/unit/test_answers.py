"""In which words whoever filed a mission reads how its question was answered."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.domain.answers import MAX_REASON, Given, asked_again, reason, stands

ASKED_AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
ANNA = {"by": "anna", "decision": "approved", "explanation": "read it"}
BERT = {"by": "bert", "decision": "approved", "explanation": "me too"}
GONE = {"by": "carl", "decision": "approved", "explanation": "fine", "counts": False}


@dataclass
class Asked:
    """A question that anna approved, or as a test has it."""

    status: str = "approved"
    question: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=lambda: {"people": 2})
    reasons: list[str] = field(default_factory=list)
    requested_at: datetime = ASKED_AT
    expires_at: datetime | None = ASKED_AT + timedelta(minutes=30)
    resolved_by: str | None = "anna"
    explanation: str | None = "read it"
    single_operator: bool = False


BY_POLICY = Asked(resolved_by="policy", explanation=None, reasons=["it is red", "nobody merges on fridays"])
ALONE = "approved by anna (who asked for it: nobody else of the workspace could): read it"


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        (Asked(status="pending", resolved_by=None, explanation=None), [], ""),
        (Asked(), [ANNA], "approved by anna: read it"),
        (Asked(status="denied"), [ANNA | {"decision": "denied"}], "denied by anna: read it"),
        (Asked(single_operator=True), [ANNA], ALONE),
        (Asked(), [BERT, ANNA], "approved by anna: read it (after bert: me too)"),
        (Asked(), [GONE, BERT, ANNA], "approved by anna: read it (after carl (counts no more): fine; bert: me too)"),
        (Asked(status="denied"), [BERT, ANNA], "denied by anna: read it (after bert: me too; anna: read it)"),
        (Asked(status="canceled", resolved_by="worker"), [], "canceled by worker"),
        (
            Asked(status="canceled", resolved_by="worker"),
            [GONE, BERT],
            "canceled by worker, 1 of 2 approved (carl (counts no more): fine; bert: me too)",
        ),
        (
            Asked(question={"rests_on": {"decision_id": "m.governance.0.0", "answers": [ANNA]}}, resolved_by="policy"),
            [ANNA],
            "approved by anna in m.governance.0.0, which stands: same files, configuration and policy",
        ),
    ],
)
def test_the_reason_says_who_answered_and_how(asked: Asked, given: Given, said: str) -> None:
    assert reason(asked, given) == said


@pytest.mark.parametrize(
    ("minutes", "given", "who"),
    [
        (30.0, [], "nobody answered within 30 min"),
        (0.05, [BERT], "1 of 2 approved (bert: me too) within 0.05 min"),
        (None, [], "nobody answered within 0 min"),
    ],
)
def test_what_expires_says_how_long_it_waited_and_who_had_approved(
    minutes: float | None, given: Given, who: str
) -> None:
    ends = None if minutes is None else ASKED_AT + timedelta(minutes=minutes)
    asked = Asked(status="expired", expires_at=ends, resolved_by="policy", explanation=None)
    assert reason(asked, given) == f"{who} (the mission's `approval_timeout_minutes`)"


class TestOfThePolicy:
    def test_what_it_lets_pass_needs_no_words(self) -> None:
        assert reason(BY_POLICY, []) == "approved by policy"

    def test_what_it_denies_says_the_sentences_of_its_rules(self) -> None:
        denied = Asked(status="denied", resolved_by="policy", explanation=None, reasons=BY_POLICY.reasons)
        assert reason(denied, []) == "denied by policy: it is red; nobody merges on fridays"

    def test_very_many_rules_are_shortened(self) -> None:
        denied = Asked(status="denied", resolved_by="policy", explanation=None, reasons=["x" * 300] * 100)
        assert len(reason(denied, [])) == len("denied by policy: ") + MAX_REASON


class TestOfAnEarlierApproval:
    def test_those_stand_who_still_count(self) -> None:
        assert stands({"decision_id": "earlier", "answers": [ANNA, GONE, BERT]}) == (
            "approved by anna and bert in earlier, which stands: same files, configuration and policy"
        )

    def test_where_it_stands_no_more_all_that_differs_is_named(self) -> None:
        assert asked_again("earlier", [ANNA], ("the configuration", "the policy")) == (
            "approved by anna in earlier, which stands no more; what differs by now: the configuration, the policy"
        )
