"""What every mission's workflow shares: an operator's commands, pausing, and doing a step that may be stopped.

Ids: `mission/<workspace>/<mission>`. Updates: pause, resume, note, cancel. Query: snapshot.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.records import RecordActivities
    from models.contracts.controls import CancelCommand, Command, ControlAnswer, Note
    from models.contracts.merge_queue import SlotGrant
    from models.contracts.pipeline import ControlRecord, DecisionRef, PipelineInput
    from models.domain.stages import StageName
    from models.domain.states import MissionOutcome
    from workflows.policies import RECORD

T = TypeVar("T")


class MissionEnds(Exception):
    """Leaves the pipeline's story early, with the outcome that stage 11 will record."""

    def __init__(self, outcome: MissionOutcome, reason: str, stage: StageName | None = None, *, capa: bool = True):
        super().__init__(reason)
        self.outcome, self.reason, self.stage, self.capa = outcome, reason, stage, capa


class SlotYielded(Exception):
    """A paused mission gives the merge slot back, so that it holds up nobody."""


class Mission:
    """The controls of a mission. A subclass tells the story; it calls `step` for whatever may be paused or canceled."""

    def __init__(self, start: PipelineInput) -> None:
        self.start = start
        self.stage: StageName | None = None
        self.merge_sha = ""
        self.in_slot = False
        self.answered: set[str] = set()  # asked for membership only, never iterated
        self.grant: SlotGrant | None = None
        self.closing = False
        self.is_paused = False
        self.canceled: CancelCommand | None = None
        self._running: asyncio.Task[Any] | None = None
        self._version = 0
        self.notes = 0
        self._records = asyncio.Lock()

    async def step(self, work: Callable[[], Awaitable[T]], *, stoppable: bool = True) -> T:
        """Do one step: hold before it while paused, and do it again when a pause stopped it."""
        while True:
            await self.hold()
            try:
                return await self._attempt(work, stoppable)
            except (ActivityError, asyncio.CancelledError) as error:
                if not is_cancelled_exception(error) or not (self.is_paused or self.canceled):
                    raise

    async def hold(self) -> None:
        """Wait while paused; leave when the mission was canceled before its merge."""
        if self.in_slot and self.is_paused:
            raise SlotYielded
        await workflow.wait_condition(lambda: not self.is_paused or self.canceled is not None)
        self.leave_if_canceled()

    def leave_if_canceled(self) -> None:
        """End the story when an operator asked for it, unless it is already ending."""
        if self.canceled is None or self.closing:
            return
        # Who canceled before the merge, and was overtaken by it, wanted no merge.
        keeps = not self.merge_sha or self.canceled.merged == "keep"
        outcome = MissionOutcome.CANCELED if keeps else MissionOutcome.ROLLED_BACK
        why = self.canceled.reason or f"canceled by {self.canceled.actor}"
        raise MissionEnds(outcome, why, self.stage, capa=bool(self.merge_sha))

    async def _attempt(self, work: Callable[[], Awaitable[T]], stoppable: bool) -> T:
        task = asyncio.ensure_future(work())
        self._running = task if stoppable else None
        try:
            return await task
        finally:
            self._running = None

    def _stop_running(self) -> bool:
        """Cancel the running command, if it is one that may be stopped; its activity kills the process tree first."""
        return self._running is not None and self._running.cancel()

    @workflow.update
    async def pause(self, command: Command) -> ControlAnswer:
        """Hold the mission before its next stage, and stop a command that is running now."""
        if self.is_paused:
            return self._answer("already")
        self.is_paused = True
        stopped = self._stop_running()
        effect = "stops_command" if stopped else "holds_before_next_stage"
        await self._record("pause", command, effect)
        return self._answer(effect)

    @workflow.update
    async def resume(self, command: Command) -> ControlAnswer:
        """Let a paused mission go on."""
        if not self.is_paused:
            return self._answer("already")
        self.is_paused = False
        await self._record("resume", command)
        return self._answer("resumed")

    @workflow.update
    async def note(self, command: Note) -> ControlAnswer:
        """Add an operator's remark to the mission's history."""
        self.notes += 1
        await self._record("note", command, command.text)
        return self._answer("noted")

    @workflow.update
    async def cancel(self, command: CancelCommand) -> ControlAnswer:
        """End the mission: clean up before the merge; keep the merge or take it back after it."""
        if self.canceled is not None:
            return self._answer("already")
        effect = self._cancel_effect(command)
        self.canceled = command
        self._stop_running()
        await self._record("cancel", command, effect)
        return self._answer(effect)

    @pause.validator
    def validate_pause(self, command: Command) -> None:
        self._refuse_when_closing()

    @resume.validator
    def validate_resume(self, command: Command) -> None:
        self._refuse_when_closing()

    @note.validator
    def validate_note(self, command: Note) -> None:
        self._refuse_when_closing()

    @cancel.validator
    def validate_cancel(self, command: CancelCommand) -> None:
        self._refuse_when_closing()
        if self.merge_sha and command.merged is None:
            raise ApplicationError(
                "the change is merged: say merged=keep or merged=roll_back", type="merged_choice_required"
            )

    @workflow.signal
    def decision_resolved(self, decision: DecisionRef) -> None:
        """Hear that a decision was answered; what the answer is stands in Postgres."""
        self.answered.add(decision.decision_id)

    @workflow.signal
    def slot_granted(self, grant: SlotGrant) -> None:
        """Hear that the merge slot is ours."""
        self.grant = grant

    def _refuse_when_closing(self) -> None:
        if self.closing:
            raise ApplicationError("the mission is already ending", type="mission_ending")

    def _cancel_effect(self, command: CancelCommand) -> str:
        if not self.merge_sha:
            return "cleans_up"
        return "rolls_back" if command.merged == "roll_back" else "keeps_merge"

    def _answer(self, effect: str) -> ControlAnswer:
        return ControlAnswer.model_validate({"effect": effect, "stage": self.stage, "paused": self.is_paused})

    async def _record(self, action: str, command: Command, detail: str = "") -> None:
        """Write the command down before it is answered. The lock keeps versions in the order of the commands."""
        async with self._records:
            self._version += 1
            record = ControlRecord(
                workspace_id=self.start.workspace_id,
                mission_id=self.start.mission_id,
                version=self._version,
                action=action,
                actor=command.actor,
                detail=detail or command.reason,
                correlation_id=command.correlation_id,
            )
            await workflow.execute_local_activity_method(RecordActivities.record_control, record, **RECORD)
