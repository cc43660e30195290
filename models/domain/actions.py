"""What the product's activities do to the world, in the words of policies (POL-18).

The verdict on a merge is asked in stage 8 and covers what leads to it; the others are declared so that a policy, and
whoever reads it, can name them.

What the worker's own loops do is no action: `activities/sealing.py` and `activities/mirroring.py` keep the audit log
whatever a policy says, also while Temporal is away, and nobody asks them to (ADR 17).
"""

from collections.abc import Mapping

from models.domain.states import DecisionKind

START = "mission.start"
"""Of an agent; operators start what they like."""
CALL_UNPRICED = "model.call_unpriced"
"""A call of a model that `config/prices.yaml` has no price for."""
MERGE = "mission.merge"
FORCE_ROLLBACK = "mission.force_rollback"
WRITE_MEMORY, WRITE_MISSION_MEMORY = "write_memory", "mission.write_memory"
"""On one's own, and for a mission, whose `memory_write_scope` holds besides."""

RECORD, READ, RECONCILE = "record", "read_db", "reconcile"
COMMANDS, ROLL_BACK = "run_commands", "mission.roll_back"

OF_ACTIVITIES: Mapping[str, str] = {
    "record_control": RECORD,
    "heed_runs": RECORD,
    "conclude": RECORD,
    "settle_round": RECORD,
    "settle": RECORD,
    "ask_about_rollback": RECORD,
    "look": RECORD,
    "request_slot": "merge_queue.request",
    "release_slot": "merge_queue.release",
    "offer_slot": "merge_queue.offer",
    "has_ended": READ,
    "leftovers": READ,
    "repeat_answers": RECONCILE,
    "close_ended": RECONCILE,
    "keep_house": RECONCILE,
    "open_round": COMMANDS,
    "take_over": "workbench.take_over",
    "close_workbench": "workbench.close",
    "prove_candidate": COMMANDS,
    "probe": COMMANDS,
    "finish": COMMANDS,
    "verify_rollback": COMMANDS,
    "merge": MERGE,
    "roll_back": ROLL_BACK,
}
"""By the activity's name."""

_ASKED_AS: Mapping[str, DecisionKind | None] = {
    MERGE: DecisionKind.GOVERNANCE,
    WRITE_MEMORY: DecisionKind.GOVERNANCE,
    WRITE_MISSION_MEMORY: DecisionKind.GOVERNANCE,
    FORCE_ROLLBACK: DecisionKind.ROLLBACK,
    START: None,
    CALL_UNPRICED: None,
}


def asked_as(action: str) -> DecisionKind | None:
    """Name the kind of the decisions that ask about an action; None where it is refused instead of asked about.

    What is none of the product's own actions is a tool's.
    """
    return _ASKED_AS.get(action, DecisionKind.TOOL_ACTION)
