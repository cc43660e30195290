"""What an operator may say to a running mission, and what the mission answers."""

from typing import Annotated, Literal

from pydantic import Field

from models.contracts.pipeline import Payload
from models.domain.ending import Choice
from models.domain.stages import StageName
from models.domain.states import MissionOutcome


class Command(Payload):
    """Who says it, in which request."""

    actor: str
    correlation_id: str = ""
    reason: Annotated[str, Field(max_length=2000)] = ""


class Note(Command):
    """An operator's remark to the run; it enters the mission's history."""

    text: Annotated[str, Field(min_length=1, max_length=2_000)]


class CancelCommand(Command):
    """Ends a mission early; after the merge the caller says what becomes of it."""

    merged: Choice | None = None


Effect = Literal[
    "stops_command",
    "holds_before_next_stage",
    "already",
    "resumed",
    "still_blocked",
    "noted",
    "cleans_up",
    "rolls_back",
    "keeps_merge",
]


class ControlAnswer(Payload):
    """What the command did: whether a running command is stopped, or the mission holds before its next stage.

    `reason`: why it is still blocked, and what helps.
    """

    effect: Effect
    stage: StageName | None = None
    paused: bool = False
    reason: str = ""


class MissionSnapshot(Payload):
    """The live state of a mission's workflow, for engineers and for the one-mission view."""

    stage: StageName | None = None
    round: int = 0
    candidate: int = 0
    paused: bool = False
    canceling: bool = False
    merge_sha: str = ""
    decision_id: str = ""
    outcome: MissionOutcome | None = None
    notes: int = 0
