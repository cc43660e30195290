"""What callers are told while Temporal, its workers or the mission are not there."""

import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from api import gateway as gateways
from api.gateway import Gateway
from models.contracts.controls import CancelCommand, Command, Note
from models.contracts.pipeline import DecisionRef, PipelineInput, StageRef
from models.domain.errors import Conflict, MissionControlError, Unavailable
from models.domain.stages import StageName
from models.domain.states import Severity
from models.settings import Settings
from tests.fixtures.api import NO_TEMPORAL
from tests.fixtures.servers import TemporalServer

Act = Callable[[Gateway, str], Awaitable[object]]
SAID = Command(actor="operator")


def start(gateway: Gateway, mission: str) -> Awaitable[str]:
    """Start a mission."""
    return gateway.start(PipelineInput(workspace_id="w", mission_id=mission), Severity.HIGH)


def told(gateway: Gateway, mission: str) -> Awaitable[None]:
    """Tell a mission of an answer."""
    ref = StageRef(workspace_id="w", mission_id=mission, stage=StageName.GOVERNANCE)
    return gateway.decision_resolved(DecisionRef(ref=ref, decision_id="d"))


UPDATES: list[Act] = [
    lambda gateway, mission: gateway.pause("w", mission, SAID, "key"),
    lambda gateway, mission: gateway.resume("w", mission, SAID, "key"),
    lambda gateway, mission: gateway.note("w", mission, Note(actor="o", text="look"), "key"),
    lambda gateway, mission: gateway.cancel("w", mission, CancelCommand(actor="o"), "key"),
]


@pytest.fixture
def mission() -> str:
    """A mission id that no other test has."""
    return f"mission_20260101_{uuid.uuid4().hex}"


@pytest.fixture
async def gateway(temporal_server: TemporalServer) -> Gateway:
    """A gateway to a server that has no worker of ours."""
    return await Gateway.open(Settings(TEMPORAL_ADDRESS=temporal_server.address, task_queue_prefix=uuid.uuid4().hex))


async def refused(act: Awaitable[object]) -> MissionControlError:
    """The error that an act ends in."""
    with pytest.raises(MissionControlError) as raised:
        await act
    return raised.value


@pytest.mark.parametrize("act", [start, told, *UPDATES])
async def test_no_server(act: Act, mission: str) -> None:
    away = await Gateway.open(Settings(TEMPORAL_ADDRESS=NO_TEMPORAL))
    began = time.monotonic()
    error = await refused(act(away, mission))
    assert (type(error), error.code) == (Unavailable, "temporal_unavailable")
    assert time.monotonic() - began < 30, "it says so, and does not try for ever"
    assert not await away.answers()


@pytest.mark.parametrize("act", [told, *UPDATES])
async def test_no_such_workflow(gateway: Gateway, act: Act, mission: str) -> None:
    error = await refused(act(gateway, mission))
    assert (type(error), error.code) == (Conflict, "mission_not_running")
    assert await gateway.answers()


async def test_no_worker(gateway: Gateway, mission: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "ANSWER_TIMEOUT", timedelta(seconds=1))
    run = await start(gateway, mission)
    assert await start(gateway, mission) == run, "starting twice starts once"
    error = await refused(UPDATES[0](gateway, mission))
    assert (type(error), error.code) == (Unavailable, "worker_unavailable")
    await told(gateway, mission)


async def test_a_mission_runs_once(gateway: Gateway, mission: str, temporal_server: TemporalServer) -> None:
    await start(gateway, mission)
    await gateway.client.get_workflow_handle(f"mission/w/{mission}").terminate()
    error = await refused(start(gateway, mission))
    assert (type(error), error.code) == (Conflict, "mission_already_ran")
    error = await refused(UPDATES[0](gateway, mission))
    assert (type(error), error.code) == (Conflict, "mission_not_running")
