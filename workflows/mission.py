"""What every mission's workflow shares: an operator's commands, pausing, and doing a step that may be stopped.

Id: `mission/<workspace>/<id>`. It takes updates (pause, resume, note, cancel) and signals, each a handler below.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.records import RecordActivities
    from models.contracts.controls import CancelCommand, Command, ControlAnswer, Effect, Note
    from models.contracts.merge_queue import SlotGrant
    from models.contracts.pipeline import ControlRecord, DecisionRef, PipelineInput, RunsCheck
    from models.domain.ending import lacks_choice, outcome_of_cancel
    from models.domain.stages import StageName
    from models.domain.states import MissionOutcome
    from workflows.looking import looks
    from workflows.policies import RECORD

T = TypeVar("T")

MAX_COMMANDS = 500
"""Pauses, resumes and notes together: Temporal ends a workflow at 50 MB of history, and a note may take 24 KB of it."""


class MissionEnds(Exception):
    """Leaves the pipeline's story early, with the outcome that stage 11 will record."""

    def __init__(self, outcome: MissionOutcome, reason: str, stage: StageName | None = None, *, capa: bool = True):
        super().__init__(reason)
        self.outcome, self.reason, self.stage, self.capa = outcome, reason, stage, capa


class SlotYielded(Exception):
    """A paused mission gives the merge slot back, so that it holds up nobody."""


class Mission:
    """The controls of a mission. A subclass tells the story; it calls `step` for what may be paused or canceled."""

    def __init__(self, start: PipelineInput) -> None:
        self.start = start
        self.stage: StageName | None = None
        self.merge_sha = ""
        self.answered: set[str] = set()  # asked for membership only, never iterated
        self.slot_number = 0
        self.grant: SlotGrant | None = None
        self.taken: SlotGrant | None = None
        self.in_slot = False
        self.is_merging = False
        self.closing = False
        self.is_paused = self.is_blocked = False
        self.canceled: CancelCommand | None = None
        self.notes = 0
        self.commands = 0
        self._running: asyncio.Task[Any] | None = None
        self._stopped = False
        self._version = 0
        self._records = asyncio.Lock()

    async def see_through(self, story: Coroutine[Any, Any, T]) -> T:
        """Run the story to its end: a cancel from Temporal's own tools ends it as an operator's does, keeping a merge.

        The story is a task of its own, because such a cancel interrupts whatever the workflow's first task awaits.
        """
        telling = asyncio.create_task(story)
        while not telling.done():
            try:
                await workflow.wait([telling])
            except asyncio.CancelledError:
                await self._cancel_from_temporal()
        return telling.result()

    async def step(self, work: Callable[[], Coroutine[Any, Any, T]], *, stoppable: bool = True) -> T:
        """Do one step: hold before it while paused, and do it again when a pause stopped it."""
        while True:
            await self.hold()
            task = asyncio.create_task(work())
            self._running, self._stopped = task if stoppable else None, False
            try:
                return await task
            except (ActivityError, asyncio.CancelledError):
                # A stopped activity may end in other ways than as canceled: its host may have died meanwhile.
                if not self._stopped:
                    raise
            finally:
                self._running = None

    async def hold(self) -> None:
        """Wait while paused or blocked; leave when the mission was canceled."""
        if self.in_slot and self.is_held:
            raise SlotYielded
        patience = looks()
        while self.is_held and not self.wants_out:
            try:
                await self.wait_until(lambda: not self.is_held or self.wants_out, next(patience))
            except TimeoutError:  # the signal that a block is over may be lost
                await self.heed_runs()
        self.leave_if_canceled()

    async def wait_until(self, holds: Callable[[], bool], timeout: timedelta | None = None) -> None:
        """Wait for a condition; raises TimeoutError."""
        while not holds():
            await self._wait_once(holds, timeout)

    async def _wait_once(self, holds: Callable[[], bool], timeout: timedelta | None) -> None:
        """Wait until the condition holds, or Temporal's tools cancel the workflow.

        The SDK then raises CancelledError in every open wait, but it is `see_through` that hears of it: the wait ends.
        """
        known = _is_canceled_in_temporal()

        def is_over() -> bool:
            return holds() or _is_canceled_in_temporal() is not known

        try:
            await workflow.wait_condition(is_over, timeout=timeout)
        except asyncio.CancelledError:
            if _is_canceled_in_temporal() is known:  # the worker lets go of the workflow
                raise

    @property
    def is_held(self) -> bool:
        """Whether it begins nothing new: by an operator's pause, by a blocked run, or by both, of which each stays."""
        return self.is_paused or self.is_blocked

    @property
    def wants_out(self) -> bool:
        """Whether the mission was canceled, and is not yet ending."""
        return self.canceled is not None and not self.closing

    def leave_if_canceled(self) -> None:
        """End the story when somebody asked for it, unless it is already ending."""
        if self.canceled is None or not self.wants_out:
            return
        outcome = outcome_of_cancel(bool(self.merge_sha), self.canceled.merged)
        why = self.canceled.reason or f"canceled by {self.canceled.actor}"
        raise MissionEnds(outcome, why, self.stage, capa=bool(self.merge_sha))

    async def begin_ending(self) -> None:
        """Take no more commands: the mission is on its way out, and a pause holds it no longer."""
        self.closing, self.is_blocked = True, False
        if self.is_paused:
            self.is_paused = False
            await self._record("resume", Command(actor="worker", reason="the mission is ending"), key="ending")

    async def finish_commands(self) -> None:
        """Wait until every command that was taken is written down and answered."""
        await self.wait_until(workflow.all_handlers_finished)
        async with self._records:
            pass

    @workflow.update
    async def pause(self, command: Command) -> ControlAnswer:
        """Hold the mission before its next stage, and stop a command that is running now."""
        self.commands += 1
        if self.is_paused:
            return self._answer("already")
        self.is_paused = True
        effect: Effect = "stops_command" if self._stop_running() else "holds_before_next_stage"
        await self._record("pause", command, effect)
        return self._answer(effect)

    @workflow.update
    async def resume(self, command: Command) -> ControlAnswer:
        """Let a paused mission go on; a block stays until its run goes on."""
        self.commands += 1
        if not self.is_paused:
            return self._answer("still_blocked" if self.is_blocked else "already")
        self.is_paused = False
        await self._record("resume", command)
        return self._answer("still_blocked" if self.is_blocked else "resumed")

    @workflow.update
    async def note(self, command: Note) -> ControlAnswer:
        """Add an operator's remark to the mission's history."""
        self.commands += 1
        self.notes += 1
        await self._record("note", command, command.text)
        return self._answer("noted")

    @workflow.update
    async def cancel(self, command: CancelCommand) -> ControlAnswer:
        """End the mission: clean up before the merge; keep the merge or take it back after it.

        While it merges nobody knows which of the two it will be: that is waited for, then asked again.
        """
        await self.wait_until(lambda: not self.is_merging)
        self.validate_cancel(command)
        if self.canceled is not None:
            return self._answer("already")
        effect = self._accept_cancel(command)
        await self._record("cancel", command, effect)
        return self._answer(effect)

    @pause.validator
    def validate_pause(self, command: Command) -> None:
        self._refuse_when_closing()
        self._refuse_when_full()

    @resume.validator
    def validate_resume(self, command: Command) -> None:
        self._refuse_when_closing()
        if not self.is_paused:
            self._refuse_when_full()

    @note.validator
    def validate_note(self, command: Note) -> None:
        self._refuse_when_closing()
        self._refuse_when_full()

    @cancel.validator
    def validate_cancel(self, command: CancelCommand) -> None:
        self._refuse_when_closing()
        if lacks_choice(bool(self.merge_sha), command.merged):
            raise ApplicationError(
                "the change is merged: say merged=keep or merged=roll_back", type="merged_choice_required"
            )

    @workflow.signal
    def decision_resolved(self, decision: DecisionRef) -> None:
        """Hear that a decision was answered; what the answer is stands in Postgres."""
        self.answered.add(decision.decision_id)

    @workflow.signal
    async def runs_changed(self) -> None:
        """Hear that one of the mission's runs was blocked, or goes on; which of the two stands in Postgres."""
        if not self.closing:
            await self.heed_runs()

    async def heed_runs(self) -> None:
        """Hold while a limit blocks one of the mission's runs, and say that we know."""
        key = {"workspace_id": self.start.workspace_id, "mission_id": self.start.mission_id}
        async with self._records:
            asked = RunsCheck(**key, is_paused=self.is_paused)
            known = await workflow.execute_local_activity_method(RecordActivities.heed_runs, asked, **RECORD)
            self.is_blocked = known.is_blocked and not self.closing
        if self.is_blocked:
            self._stop_running()

    async def _cancel_from_temporal(self) -> None:
        if self.closing or self.canceled is not None:
            return
        reason = workflow.cancellation_reason() or "canceled in Temporal"
        command = CancelCommand(actor="temporal", reason=reason, merged="keep")
        await self._record("cancel", command, self._accept_cancel(command), key="temporal")

    def _accept_cancel(self, command: CancelCommand) -> Effect:
        self.canceled = command
        self._stop_running()
        if not self.merge_sha:
            return "cleans_up"
        return "keeps_merge" if outcome_of_cancel(True, command.merged) is MissionOutcome.CANCELED else "rolls_back"

    def _stop_running(self) -> bool:
        """Cancel the running command, if it is one that may be stopped; its activity kills the process tree first."""
        if self._running is None or self._running.done():
            return False
        self._stopped = True
        return self._running.cancel()

    def _refuse_when_closing(self) -> None:
        if self.closing:
            raise ApplicationError("the mission is already ending", type="mission_ending")

    def _refuse_when_full(self) -> None:
        if self.commands >= MAX_COMMANDS:
            raise ApplicationError(
                f"the mission has taken {MAX_COMMANDS} commands, and keeps no more: it can still be canceled",
                type="too_many_commands",
            )

    def _answer(self, effect: Effect) -> ControlAnswer:
        return ControlAnswer(effect=effect, stage=self.stage, paused=self.is_held)

    async def _record(self, action: str, command: Command, detail: str = "", *, key: str = "") -> None:
        """Write the command down before it is answered. The lock keeps versions in the order of the commands."""
        update = workflow.current_update_info()
        async with self._records:
            self._version += 1
            record = ControlRecord(
                workspace_id=self.start.workspace_id,
                mission_id=self.start.mission_id,
                key=update.id if update else key,
                version=self._version,
                action=action,
                actor=command.actor,
                detail=": ".join(said for said in (detail, command.reason) if said),
                correlation_id=command.correlation_id,
            )
            await workflow.execute_local_activity_method(RecordActivities.record_control, record, **RECORD)


def _is_canceled_in_temporal() -> bool:
    return workflow.cancellation_reason() is not None
