"""When a mission has its merge approved, and what an approval stands for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.approval import Binding, demanded
from models.domain.memory import WriteScope
from models.domain.policy import Ask, Outcome, Risk, Verdict
from tests.fixtures.policies import VERDICTS


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"patch_id": "p2"}, "the files that it touches"),
        ({"config_hash": "c2"}, "the configuration"),
        ({"policy_version": "v2"}, "the policy"),
        ({"reasons": ("it is dear",)}, "the reasons to ask"),
        ({"rules": ("dear",)}, "the reasons to ask"),
    ],
)
def test_an_approval_stands_only_for_what_it_bound(change: dict[str, Any], name: str) -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected",))
    assert (bound.covers(bound), bound.differences(bound)) == (True, ())
    later = bound.model_copy(update=change)
    assert (bound.covers(later), bound.differences(later)) == (False, (name,))


def test_an_approval_stands_when_doubts_went_away_and_not_when_one_is_new() -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected", "an operator overrides: test"))
    assert bound.covers(bound.model_copy(update={"reasons": ("the branch is protected",)}))
    assert not bound.covers(bound.model_copy(update={"reasons": ("the scan found 1 new medium finding(s)",)}))


def test_an_approval_does_not_stand_where_another_rule_says_the_same() -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("it is dear",), rules=("dear", "protected"))
    assert bound.covers(bound.model_copy(update={"rules": ("dear",)}))
    assert not bound.covers(bound.model_copy(update={"rules": ("very-dear",)}))


@given(VERDICTS, st.sampled_from(WriteScope), st.booleans())
def test_what_the_filer_wants_decided_is_asked_whatever_the_policy_allows(
    verdict: Verdict, scope: WriteScope, requires: bool
) -> None:
    found = demanded(verdict, scope, requires)
    if not (requires or scope is WriteScope.PROPOSE) or verdict.outcome is not Outcome.ALLOW:
        assert found == verdict, "the filer makes no policy laxer, and asks no second question"
        return
    assert (found.outcome, found.reasons[:-1]) == (Outcome.ASK, verdict.reasons)
    assert found.ask is not None


@pytest.mark.parametrize(
    ("scope", "requires", "reason"),
    [
        (WriteScope.PROPOSE, False, "the mission's memory_write_scope is propose: it may not merge by itself"),
        (WriteScope.PROPOSE, True, "the mission's memory_write_scope is propose: it may not merge by itself"),
        (WriteScope.PERSIST, True, "the mission requires governance approval"),
        (WriteScope.READ_ONLY, True, "the mission requires governance approval"),
        (WriteScope.PERSIST, False, None),
        (WriteScope.READ_ONLY, False, None),
    ],
)
def test_the_reason_names_what_the_filer_set(scope: WriteScope, requires: bool, reason: str | None) -> None:
    allowed = Verdict(risk=Risk.GREEN, outcome=Outcome.ALLOW, reasons=())
    assert demanded(allowed, scope, requires).reasons == ((reason,) if reason else ())


@given(VERDICTS, st.sampled_from(WriteScope), st.booleans())
def test_a_branch_that_was_chosen_is_told_and_asked_about(verdict: Verdict, scope: WriteScope, requires: bool) -> None:
    found = demanded(verdict, scope, requires, branch="main")
    asks = verdict.outcome is Outcome.ALLOW
    assert found.outcome is (Outcome.ASK if asks else verdict.outcome)
    assert found.reasons == (*verdict.reasons, "whoever filed it chose the branch 'main', not the registered one")
    assert (found.risk, found.ask) == (verdict.risk, Ask() if asks else verdict.ask)
