"""The only door from the API to Temporal: starting missions, steering them, and telling them of answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from api.sdk_metrics import sdk_metrics
from models.contracts.controls import CancelCommand, Command, ControlAnswer, Note
from models.contracts.pipeline import TASK_TIMEOUT, DecisionRef, PipelineInput
from models.contracts.search_attributes import SearchAttribute
from models.domain.errors import Conflict, MissionControlError, Unavailable
from models.domain.ids import mission_workflow_id
from models.domain.states import Severity
from models.settings import Settings
from workflows.client import connect
from workflows.coding_pipeline import CodingPipelineWorkflow
from workflows.queues import control_queue

log = structlog.get_logger()

RPC_TIMEOUT = timedelta(seconds=5)
"""How long a caller waits for a Temporal server that does not answer."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long a caller waits for a worker to take its command: a restarting worker is back within 5 s."""


class Gateway:
    """Temporal as the API sees it. Every call raises `Unavailable` (503) while the server or all workers are away."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client, self._queue = client, queue

    @classmethod
    async def open(cls, settings: Settings) -> "Gateway":
        """Make a gateway; it connects with its first call, so that the API starts without Temporal."""
        client = await connect(settings, runtime=sdk_metrics().runtime, lazy=True)
        return cls(client, control_queue(settings.task_queue_prefix))

    async def start(self, mission: PipelineInput, severity: Severity, *, is_repeated: bool = False) -> str:
        """Start a mission's workflow; its run id. Of several callers at once Temporal lets one start it.

        A repeated request finds it running, for its first may have started it.

        Raises:
            Conflict: `already_running`, for a mission runs once.
        """
        bind_contextvars(workflow_id=mission_workflow_id(mission.workspace_id, mission.mission_id))
        async with _translated():
            try:
                return await self._start(mission, severity, is_repeated, _searchable(mission, severity))
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                # The server does not know the attributes: no worker of ours came yet, or none may register them.
                log.warning("started_without_search_attributes", error=error.message)
                return await self._start(mission, severity, is_repeated, None)

    async def _start(
        self, mission: PipelineInput, severity: Severity, is_repeated: bool, searchable: TypedSearchAttributes | None
    ) -> str:
        conflict = WorkflowIDConflictPolicy
        handle = await self.client.start_workflow(
            CodingPipelineWorkflow.run,
            mission,
            id=mission_workflow_id(mission.workspace_id, mission.mission_id),
            task_queue=self._queue,
            task_timeout=TASK_TIMEOUT,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=conflict.USE_EXISTING if is_repeated else conflict.FAIL,
            priority=Priority(priority_key=severity.rank + 1, fairness_key=mission.workspace_id[:64]),
            static_summary=f"{severity.value} mission {mission.mission_id}",
            search_attributes=searchable,
            rpc_timeout=RPC_TIMEOUT,
        )
        return handle.result_run_id or ""

    async def pause(self, workspace_id: str, mission_id: str, command: Command, key: str) -> ControlAnswer:
        """Hold a mission. `key` makes a repetition harmless, here and below."""
        return await self._update(workspace_id, mission_id, CodingPipelineWorkflow.pause, command, f"pause/{key}")

    async def resume(self, workspace_id: str, mission_id: str, command: Command, key: str) -> ControlAnswer:
        """Let a paused mission go on."""
        return await self._update(workspace_id, mission_id, CodingPipelineWorkflow.resume, command, f"resume/{key}")

    async def note(self, workspace_id: str, mission_id: str, note: Note, key: str) -> ControlAnswer:
        """Add a remark to a running mission."""
        return await self._update(workspace_id, mission_id, CodingPipelineWorkflow.note, note, f"note/{key}")

    async def cancel(self, workspace_id: str, mission_id: str, command: CancelCommand, key: str) -> ControlAnswer:
        """End a mission early."""
        return await self._update(workspace_id, mission_id, CodingPipelineWorkflow.cancel, command, f"cancel/{key}")

    async def decision_resolved(self, decision: DecisionRef) -> None:
        """Tell a waiting mission that a decision was answered; the reconciler repeats it until it is acknowledged."""
        name = mission_workflow_id(decision.ref.workspace_id, decision.ref.mission_id)
        handle = self.client.get_workflow_handle(name)
        bind_contextvars(workflow_id=name)
        async with _translated():
            await handle.signal(CodingPipelineWorkflow.decision_resolved, decision, rpc_timeout=RPC_TIMEOUT)

    async def runs_changed(self, workspace_id: str, mission_id: str) -> None:
        """Tell a mission that one of its runs was blocked, or goes on; the reconciler repeats it until it is heeded."""
        name = mission_workflow_id(workspace_id, mission_id)
        async with _translated():
            handle = self.client.get_workflow_handle(name)
            await handle.signal(CodingPipelineWorkflow.runs_changed, rpc_timeout=RPC_TIMEOUT)

    async def answers(self) -> bool:
        """Whether the server answers now."""
        try:
            return await self.client.service_client.check_health(timeout=timedelta(seconds=1))
        except (RPCError, RuntimeError):
            return False

    async def last_poll(self) -> datetime | None:
        """When a worker last asked for a mission's next step; None if none did lately, or the server is away."""
        question = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=self._queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            found = await self.client.workflow_service.describe_task_queue(question, timeout=timedelta(seconds=1))
        except (RPCError, RuntimeError):
            return None
        times = [poller.last_access_time.ToDatetime(tzinfo=UTC) for poller in found.pollers]
        return max(times, default=None)

    async def _update(
        self,
        workspace_id: str,
        mission_id: str,
        update: UpdateMethodMultiParam[[Any, Any], ControlAnswer],
        command: Command,
        update_id: str,
    ) -> ControlAnswer:
        name = mission_workflow_id(workspace_id, mission_id)
        handle = self.client.get_workflow_handle(name)
        bind_contextvars(workflow_id=name)
        async with _translated():
            return await handle.execute_update(update, command, id=update_id, rpc_timeout=ANSWER_TIMEOUT)


def _searchable(mission: PipelineInput, severity: Severity) -> TypedSearchAttributes:
    values = {
        SearchAttribute.WORKSPACE_ID: mission.workspace_id,
        SearchAttribute.MISSION_ID: mission.mission_id,
        SearchAttribute.SEVERITY: severity.value,
    }
    keyword = SearchAttributeKey.for_keyword
    return TypedSearchAttributes([SearchAttributePair(keyword(name), value) for name, value in values.items()])


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Say Temporal's errors in our words."""
    try:
        yield
    except WorkflowAlreadyStartedError as error:
        message = "the mission was started before; once it has ended, `retry` makes a new one of it"
        raise Conflict("already_running", message) from error
    except WorkflowUpdateFailedError as error:
        raise _refusal(error) from error
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        raise Unavailable(
            "worker_unavailable",
            "no worker answered in time; the command may still take effect: look at the mission, or repeat the command "
            "with the same Idempotency-Key, which does it once",
        ) from error
    except RPCError as error:
        raise _rpc_error(error) from error
    except RuntimeError as error:  # the SDK's own word for a lazy connection that was refused
        raise _away() from error


def _refusal(error: WorkflowUpdateFailedError) -> MissionControlError:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return Conflict(cause.type or "command_refused", cause.message)
    return Conflict("command_refused", "the mission ended before it could take the command")


def _rpc_error(error: RPCError) -> MissionControlError:
    if error.status is RPCStatusCode.NOT_FOUND:
        return Conflict("mission_not_running", "no workflow of this mission is running")
    if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return Unavailable("mission_busy", f"too much is asked of it at once, try again soon: {error.message}")
    return _away()


def _away() -> Unavailable:
    return Unavailable("temporal_unavailable", "Temporal does not answer; reads and decisions work, try again soon")
