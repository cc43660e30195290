"""The page `docs/state-machines.md`: the transition tables of the code, for people (OPS-09)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from models.domain.agents import AGENT_TRANSITIONS, REGISTRATION_TRANSITIONS
from models.domain.alerts import ALERT_TRANSITIONS
from models.domain.memory import NOTE_TRANSITIONS
from models.domain.states import CAPA_TRANSITIONS, DECISION_TRANSITIONS, MISSION_TRANSITIONS

State = TypeVar("State", bound=StrEnum)

_HEAD = """# State machines

Written by `make openapi` from the tables of `models/domain`, by which the store checks every change of a state.
"""


def page() -> str:
    """Write the page."""
    sections = (
        _section("Missions", MISSION_TRANSITIONS),
        _section("Decisions", DECISION_TRANSITIONS),
        _section("Corrective actions (CAPA)", CAPA_TRANSITIONS),
        _section("Notes of the memory", NOTE_TRANSITIONS),
        _section("Registrations of agents", REGISTRATION_TRANSITIONS),
        _section("Agents", AGENT_TRANSITIONS),
        _section("Alerts", ALERT_TRANSITIONS),
    )
    return "\n".join([_HEAD, *sections])


def _section(title: str, table: Mapping[State, frozenset[State]]) -> str:
    rows = (f"| `{state}` | {_targets(table, targets)} |" for state, targets in table.items())
    return "\n".join([f"## {title}", "", "| from | to |", "| --- | --- |", *rows, ""])


def _targets(table: Mapping[State, frozenset[State]], targets: frozenset[State]) -> str:
    """List them in the order of the machine; an end has none."""
    return ", ".join(f"`{state}`" for state in table if state in targets) or "an end"
