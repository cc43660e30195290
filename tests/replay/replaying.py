"""Histories as they are kept: read, replayed by today's workflows, and what today's workflows asked for meanwhile."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import (
    ContinueAsNewInput,
    Interceptor,
    Replayer,
    SignalExternalWorkflowInput,
    StartActivityInput,
    StartLocalActivityInput,
    UnsandboxedWorkflowRunner,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from worker.main import INTERCEPTORS, WORKFLOWS

FOLDER = Path(__file__).with_name("histories")
FINGERPRINTS = Path(__file__).with_name("fingerprints.json")


def names() -> list[str]:
    """Every kept history, as `<workflow>/<scenario>`."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json"))


def load(name: str) -> WorkflowHistory:
    """Read a kept history."""
    return WorkflowHistory.from_json(name, (FOLDER / f"{name}.json").read_text())


def events(name: str) -> Iterator[dict[str, Any]]:
    """Read a kept history's events as they are written."""
    yield from json.loads((FOLDER / f"{name}.json").read_text())["events"]


async def replay(history: WorkflowHistory, workflows: tuple[type, ...] = WORKFLOWS) -> None:
    """Replay a history in the sandbox, which imports workflows anew, and so watches them; raises if they differ."""
    replayer = Replayer(workflows=workflows, data_converter=pydantic_data_converter, interceptors=INTERCEPTORS)
    await replayer.replay_workflow(history)


async def fingerprint(name: str) -> list[str]:
    """What today's workflow asks for along a history, with the queues and timeouts that replay does not compare."""
    asked = Asked()
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=pydantic_data_converter,
        interceptors=[*INTERCEPTORS, asked],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    await replayer.replay_workflow(load(name))
    return asked.lines


@dataclass
class Asked(Interceptor):
    """Writes down every command of a workflow, with its queue and timeouts."""

    lines: list[str] = field(default_factory=list)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        lines = self.lines

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
                lines.append(_activity(input))
                return super().start_activity(input)

            def start_local_activity(self, input: StartLocalActivityInput) -> ActivityHandle[Any]:
                lines.append(f"local {input.activity} within {input.start_to_close_timeout}")
                return super().start_local_activity(input)

            async def signal_external_workflow(self, input: SignalExternalWorkflowInput) -> None:
                lines.append(f"signal {input.signal}")
                await super().signal_external_workflow(input)

            def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
                lines.append("continue as new")
                super().continue_as_new(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


def _activity(asked: StartActivityInput) -> str:
    queue = next((kind for kind in ("host", "workbench") if kind in (asked.task_queue or "")), "control")
    limits = {
        "taken": asked.schedule_to_start_timeout,
        "done": asked.start_to_close_timeout,
        "all": asked.schedule_to_close_timeout,
        "heartbeat": asked.heartbeat_timeout,
    }
    said = " ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
    return f"activity {asked.activity} on {queue} {said} {asked.cancellation_type.name.lower()}"


async def replay_all() -> None:
    """Replay every history: what a process with another hash seed is started for."""
    for name in names():
        await replay(load(name))


if __name__ == "__main__":
    asyncio.run(replay_all())
    # The SDK's own threads may still use the interpreter while it is taken down, and then the process dies of a signal.
    sys.stdout.flush()
    os._exit(0)
