"""What the reconciler does: it compares Postgres with Temporal, and Postgres says in the end what is true."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.concluding import conclude
from activities.heartbeats import heartbeating
from activities.recording import StageRecorder
from models.configuration import config_hash
from models.contracts.pipeline import Conclusion, DecisionRef, StageRef
from models.contracts.reconciling import Leftover
from models.domain.alerts import AlertKind
from models.domain.budgets import RunStatus
from models.domain.ending import doubt
from models.domain.errors import Conflict, MissionControlError, Unavailable
from models.domain.events import Subject
from models.domain.ids import mission_workflow_id
from models.domain.stages import StageName
from models.domain.states import MissionOutcome
from models.store import (
    agents,
    alerts,
    blocks,
    budgets,
    claims,
    configuration,
    governance,
    idempotency,
    ledger,
    memory,
    reconciling,
    running,
    runs,
    signing_keys,
    stages,
)
from models.store.alerts import NewAlert
from models.store.events import Actor
from models.store.ledger import Place
from models.tables.missions import Mission

log = structlog.get_logger()
T = TypeVar("T")

RECONCILER = "reconciler"
RUNNING_MISSIONS = "WorkflowType = 'CodingPipelineWorkflow' AND ExecutionStatus = 'Running'"
AT_ONCE = 200
"""Of one kind in one pass: decisions that it reminds of or expires and alerts that it ends, whose events fit into one
short transaction, and whatever it takes back, releases or ends one by one."""


TIMES = 20
"""That one pass lets runs go on, some of them each time: what held 50,000 runs holds none a minute later."""


@dataclass(frozen=True)
class Signals:
    """A mission's, handed in: activities sit below workflows."""

    decision_resolved: Callable[[Any, DecisionRef], Awaitable[None] | None]
    runs_changed: Callable[[Any], Awaitable[None]]


@dataclass
class Parts:
    """Parts of a pass, each of which fails alone: that one did is told when all others are done."""

    failed: set[str] = field(default_factory=set)

    @contextmanager
    def one(self, name: str, about: object = None) -> Iterator[None]:
        """Go on after it, whatever happens in it."""
        try:
            yield
        except Exception:
            log.exception("part_of_pass_failed", part=name, about=about)
            self.failed.add(name)

    def require_all(self) -> None:
        """Raise `Unavailable` (`pass_incomplete`) where one failed."""
        if self.failed:
            told = f"of the pass these failed, and are tried again in the next: {', '.join(sorted(self.failed))}"
            raise Unavailable("pass_incomplete", f"{told}; the worker's log says why")


class ReconcileActivities:
    """One method per thing that can be left undone."""

    def __init__(self, recorder: StageRecorder, client: Client, signals: Signals, config_dir: Path) -> None:
        self._recorder, self._db = recorder, recorder.db
        self._client, self._signals = client, signals
        self._config_dir = config_dir

    @activity.defn
    async def repeat_answers(self) -> int:
        """Expire what nobody answered in time, and tell workflows of all they have not acknowledged; how many.

        Before, what a limit blocked goes on where its window has turned, or where it is open all the same.

        Raises:
            Unavailable: `pass_incomplete`, where a part failed; all others were done.
        """
        parts, told = Parts(), 0
        async with heartbeating():
            with parts.one("turn_windows"):
                await self._turn_windows()
            with parts.one("expire"):
                async with self._db.system() as session:
                    await _expire(session, _this_pass())
            async with self._db.system() as session:
                unheard = await reconciling.unacknowledged(session)
                due = await blocks.to_tell(session)
            for workspace_id, answer in unheard:
                with parts.one("tell", answer.decision_id):
                    told += await self._tell(workspace_id, answer)
            for mission in due:
                with parts.one("tell_of_runs", mission):
                    told += await self._tell_of_runs(*mission)
        parts.require_all()
        return told

    async def _turn_windows(self) -> None:
        """Let runs go on some at a time, so many times in one pass."""
        for _ in range(TIMES):
            async with self._db.system() as session:
                if not await blocks.turn_windows(session, _this_pass()):
                    return

    @activity.defn
    async def close_ended(self) -> int:
        """Close missions whose workflow was terminated, timed out or vanished; return how many."""
        async with heartbeating():
            async with self._db.system() as session:
                missions = await reconciling.running(session)
            alive = (
                {workflow.id async for workflow in self._client.list_workflows(RUNNING_MISSIONS)} if missions else set()
            )
            return sum([await self._try_to_close(mission) for mission in missions if _name(mission) not in alive])

    @activity.defn
    async def leftovers(self) -> list[Leftover]:
        """List workbenches of ended missions that nobody closed."""
        async with heartbeating(), self._db.system() as session:
            return await reconciling.open_workbenches_of_ended(session)

    @activity.defn
    async def keep_house(self) -> None:
        """Make the coming months' event partitions, let go of what is over or was held too long, tell of news.

        Raises:
            Unavailable: `pass_incomplete`, where a part failed; all others were done.
        """
        parts = Parts()
        async with heartbeating():
            for part in (
                reconciling.make_partitions,
                reconciling.drop_partitions,
                idempotency.forget_old,
                reconciling.forget_sessions,
                self._note_configuration,
                self._publish_key,
                agents.sweep,
                self._end_alerts,
                self._give_back,
            ):
                with parts.one(part.__name__):
                    async with self._db.system() as session:
                        await part(session)
            await self._each(parts, "release_overdue", ledger.overdue, self._release)
            await self._each(parts, "end_orphans", runs.orphans, self._end_run)
            await self._each(parts, "take_back_of_ended_runs", budgets.asked_of_ended, self._close_run)
            await self._each(parts, "take_back_of_open_limits", budgets.asked_of_open, self._close_open)
            await self._each(parts, "take_back_of_closed_missions", governance.asked_of_ended, self._withdraw)
        parts.require_all()

    async def _each(
        self,
        parts: Parts,
        name: str,
        find: Callable[[AsyncSession, int], Awaitable[Sequence[T]]],
        do: Callable[[T], Awaitable[object]],
    ) -> None:
        """Do a part that is one thing for each that is found, so many in one pass; each fails alone."""
        with parts.one(name):
            async with self._db.system() as session:
                found = await find(session, AT_ONCE)
            for one in found:
                with parts.one(name, one):
                    await do(one)

    async def _release(self, place: Place) -> None:
        await ledger.release(self._db, place, _this_pass())

    async def _end_run(self, orphan: tuple[str, str, str]) -> None:
        workspace_id, run_id, why = orphan
        with suppress(Conflict):  # somebody else has ended it meanwhile
            async with self._db.workspace(workspace_id) as session:
                await runs.end(session, workspace_id, run_id, RunStatus.FAILED, why, _this_pass())

    async def _close_run(self, ended: tuple[str, str]) -> None:
        workspace_id, run_id = ended
        async with self._db.workspace(workspace_id) as session:
            await runs.close(session, workspace_id, run_id, _this_pass())

    async def _close_open(self, limit: tuple[str, str, str]) -> None:
        workspace_id, scope, subject = limit
        async with self._db.workspace(workspace_id) as session:
            await budgets.close_open(session, workspace_id, scope, subject, _this_pass())

    async def _withdraw(self, asked: tuple[str, str]) -> None:
        workspace_id, decision_id = asked
        async with self._db.workspace(workspace_id) as session:
            await governance.withdraw(session, workspace_id, decision_id, _this_pass())

    async def _note_configuration(self, session: AsyncSession) -> None:
        """Tell of an edited file; one that cannot be read changes nothing, and `GET /status` says so."""
        try:
            found = config_hash(self._config_dir)
        except Unavailable as error:
            activity.logger.warning("configuration_not_noted: %s", error.message)
            return
        await configuration.note(session, found, _this_pass())

    async def _publish_key(self, session: AsyncSession) -> None:
        """Let readers verify what this worker signs."""
        key = self._recorder.key
        await signing_keys.publish(session, key.key_id, key.public_openssh, _this_pass())

    async def _give_back(self, session: AsyncSession) -> None:
        """Let others have what agents were given while they ended."""
        await claims.give_back(session, _this_pass())

    async def _end_alerts(self, session: AsyncSession) -> None:
        """Resolve what told of limits whose window is over, or that are open by now, and of missions that ended."""
        await alerts.turn_windows(session, _this_pass(), AT_ONCE)
        await alerts.end_with_missions(session, _this_pass(), AT_ONCE)

    async def _tell(self, workspace_id: str, decision: DecisionRef) -> int:
        name = mission_workflow_id(workspace_id, decision.ref.mission_id)
        try:
            await self._client.get_workflow_handle(name).signal(self._signals.decision_resolved, decision)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                log.warning("answer_not_told", decision=decision.decision_id, error=error.message)
                await self._tell_people(workspace_id, decision.ref.mission_id, error)
                return 0
            async with self._db.workspace(workspace_id) as session:
                await governance.acknowledge(session, workspace_id, decision.decision_id)
            return 0
        return 1

    async def _tell_of_runs(self, workspace_id: str, mission_id: str) -> int:
        handle = self._client.get_workflow_handle(mission_workflow_id(workspace_id, mission_id))
        try:
            await handle.signal(self._signals.runs_changed)
        except RPCError as error:  # a workflow that has ended is closed in this pass, and then needs to know nothing
            log.warning("block_not_told", mission_id=mission_id, error=error.message)
            await self._tell_people(workspace_id, mission_id, error)
            return 0
        return 1

    async def _tell_people(self, workspace_id: str, mission_id: str, error: RPCError) -> None:
        """Raise an alert about a mission whose workflow takes no more signals, which no later pass will change."""
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            return
        about = Subject(kind="mission", id=mission_id)
        said = f"Temporal tells mission {mission_id} nothing: {error.message}; it finds answers when it looks itself"
        refused = NewAlert(AlertKind.MISSION_UNREACHABLE, about, said, {"error": error.message})
        async with self._db.workspace(workspace_id) as session:
            await alerts.sound(session, workspace_id, _this_pass(), refused)

    async def _try_to_close(self, mission: Mission) -> int:
        """Leave a mission that cannot be closed now to the next pass: it keeps no other open."""
        try:
            return await self._close_if_ended(mission)
        except (RPCError, MissionControlError, SQLAlchemyError) as error:
            log.warning("mission_not_closed", workflow_id=_name(mission), error=str(error))
            return 0

    async def _close_if_ended(self, mission: Mission) -> int:
        """Ask Temporal itself, because Visibility lags; then close the row with the reason that it gives."""
        reason = await self._why_ended(mission)
        if reason is None:
            return 0
        async with self._db.workspace(mission.workspace_id) as session:
            whole = await running.load(session, mission.workspace_id, mission.mission_id)
            ref = await stages.last_ref(session, mission.workspace_id, mission.mission_id, StageName.RESOLVE)
            return int(await conclude(self._recorder, session, _terminated(whole, ref, reason), RECONCILER))

    async def _why_ended(self, mission: Mission) -> str | None:
        """Ask for the latest run: an engineer may have reset the workflow to an earlier point."""
        try:
            status = (await self._client.get_workflow_handle(_name(mission)).describe()).status
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "its workflow vanished from Temporal"
            raise
        if status in (WorkflowExecutionStatus.RUNNING, None):
            return None
        return f"its workflow ended in Temporal as {status.name.lower()}"


async def _expire(session: AsyncSession, actor: Actor) -> None:
    """Remind of questions when half of their time is over, and end those whose time is."""
    await governance.tell_half_time(session, actor, AT_ONCE)
    await governance.expire_overdue(session, actor, AT_ONCE)
    await memory.refuse_expired(session, actor)


def _this_pass() -> Actor:
    return Actor(RECONCILER, f"reconcile/{activity.info().workflow_run_id}")


def _terminated(mission: Mission, ref: StageRef, reason: str) -> Conclusion:
    """Close the mission. A merge that nobody observed to the end, or that may have happened, calls for a look."""
    open_end = doubt(mission.stage, bool(mission.merge_sha))
    return Conclusion(
        ref=ref,
        outcome=MissionOutcome.TERMINATED,
        reason=f"{reason}{open_end}",
        merge_sha=mission.merge_sha or "",
        revert_sha=mission.revert_sha or "",
        capa=bool(open_end),
    )


def _name(mission: Mission) -> str:
    return mission_workflow_id(mission.workspace_id, mission.mission_id)
