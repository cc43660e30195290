"""What the product's own parts may call things by themselves, by hand for every part and every state (POL-21)."""

from enum import StrEnum

import pytest

from models.domain.budgets import RunStatus
from models.domain.errors import NotPermitted
from models.domain.names import SYSTEM_NAMES
from models.domain.states import DecisionStatus, MissionStatus
from models.domain.system_acts import require_may_set

TABLE = """
run success       worker
run failed        first-start policy reconciler system worker
run blocked       first-start policy reconciler system worker
mission open          first-start policy reconciler system worker
mission in_progress   first-start policy reconciler system worker
mission observing     first-start policy reconciler system worker
mission escalated     first-start policy reconciler system worker
mission resolved      worker
decision pending      first-start policy reconciler system worker
decision expired      first-start policy reconciler system worker
decision canceled     first-start policy reconciler system worker
decision denied       first-start policy reconciler system worker
decision approved
"""
"""Blocked is `blocked`, Needs Approval is a pending decision, Done are `success`, `resolved` and `approved`."""
MACHINES: dict[str, type[StrEnum]] = {"run": RunStatus, "mission": MissionStatus, "decision": DecisionStatus}
ROWS = [line.split() for line in TABLE.strip().splitlines()]


def may(actor: str, to: StrEnum) -> bool:
    try:
        require_may_set(actor, to)
    except NotPermitted:
        return False
    return True


def test_the_table_is_whole() -> None:
    stated = {(machine, state) for machine, state, *_ in ROWS}
    assert stated == {(machine, state.value) for machine, states in MACHINES.items() for state in states}
    assert {name for _, _, *names in ROWS for name in names} == SYSTEM_NAMES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_each_part_of_the_product(row: list[str]) -> None:
    to = MACHINES[row[0]](row[1])
    assert {name for name in SYSTEM_NAMES if may(name, to)} == set(row[2:])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
@pytest.mark.parametrize("actor", ["olga", "home/olga", "coder"])
def test_people_and_agents_are_held_by_other_rules(row: list[str], actor: str) -> None:
    assert may(actor, MACHINES[row[0]](row[1]))
