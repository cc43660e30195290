"""Who must approve a merge, and what an approval stands for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.approval import Binding, MergeFacts, Risk, assess_merge

HARMLESS = MergeFacts(requires_governance_approval=False, protected=False, env="dev")

ASKING: list[tuple[dict[str, Any], Risk, str]] = [
    ({"protected": True}, Risk.RED, "the branch is protected"),
    ({"env": "prod"}, Risk.RED, "the environment is production"),
    ({"touches_config": True}, Risk.RED, "the patch changes the repository's mission-control file"),
    ({"ci_files": ("ci.yml",)}, Risk.RED, "the patch changes CI files: ci.yml"),
    ({"requires_governance_approval": True}, Risk.YELLOW, "the mission requires governance approval"),
    ({"existing_tests": ("test_a.py",)}, Risk.YELLOW, "the patch changes existing tests: test_a.py"),
    ({"gone_tests": ("a.py::t",)}, Risk.YELLOW, "tests that passed at the base are gone: a.py::t"),
    ({"medium_findings": 2}, Risk.YELLOW, "the scan found 2 new medium finding(s)"),
    ({"overrides": ("setup", "test")}, Risk.YELLOW, "an operator overrides: setup, test"),
]


def test_a_harmless_merge_needs_nobody() -> None:
    verdict = assess_merge(HARMLESS)
    assert (verdict.needs_human, verdict.reasons) == (False, ())


@pytest.mark.parametrize(("change", "risk", "reason"), ASKING)
def test_each_rule_asks_and_says_why(change: dict[str, Any], risk: Risk, reason: str) -> None:
    verdict = assess_merge(HARMLESS.model_copy(update=change))
    assert (verdict.needs_human, verdict.risk, verdict.reasons) == (True, risk, (reason,))


@given(st.sets(st.integers(0, len(ASKING) - 1), min_size=1))
def test_all_rules_that_fire_are_named_and_the_worst_counts(chosen: set[int]) -> None:
    fired = [ASKING[n] for n in sorted(chosen)]
    facts = HARMLESS.model_copy(update={name: value for change, _, _ in fired for name, value in change.items()})
    verdict = assess_merge(facts)
    assert verdict.reasons == tuple(reason for _, _, reason in fired)
    assert (verdict.risk is Risk.RED) == any(risk is Risk.RED for _, risk, _ in fired)


@pytest.mark.parametrize("change", [{"patch_id": "p2"}, {"config_hash": "c2"}, {"policy_version": "v2"}])
def test_an_approval_stands_only_for_what_it_bound(change: dict[str, str]) -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected",))
    assert bound.covers(bound)
    assert not bound.covers(bound.model_copy(update=change))


def test_an_approval_stands_when_doubts_went_away_and_not_when_one_is_new() -> None:
    bound = Binding(patch_id="p", config_hash="c", reasons=("the branch is protected", "an operator overrides: test"))
    assert bound.covers(bound.model_copy(update={"reasons": ("the branch is protected",)}))
    assert not bound.covers(bound.model_copy(update={"reasons": ("the scan found 1 new medium finding(s)",)}))
