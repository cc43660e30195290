"""What callers are told while Temporal, its workers or the mission are not there."""

import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from api import gateway as gateways
from api.gateway import Gateway
from models.contracts.controls import CancelCommand, Command, Note
from models.contracts.pipeline import DecisionRef, PipelineInput, StageRef
from models.contracts.search_attributes import SearchAttribute
from models.domain.errors import Conflict, MissionControlError, Unavailable
from models.domain.stages import StageName
from models.domain.states import Severity
from models.settings import Settings
from tests.fixtures.api import NO_TEMPORAL
from tests.fixtures.servers import TemporalServer
from worker.search_attributes import ensure_search_attributes

Act = Callable[[Gateway, str], Awaitable[object]]
SAID = Command(actor="operator")


def start(gateway: Gateway, mission: str, *, is_repeated: bool = False) -> Awaitable[str]:
    """Start a mission."""
    package = PipelineInput(workspace_id="w", mission_id=mission)
    return gateway.start(package, Severity.HIGH, is_repeated=is_repeated)


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
    assert await start(gateway, mission, is_repeated=True) == run, "starting twice starts once"
    error = await refused(UPDATES[0](gateway, mission))
    assert (type(error), error.code) == (Unavailable, "worker_unavailable")
    assert "may still take effect" in error.message
    await told(gateway, mission)


def test_what_temporal_refuses_is_not_called_away() -> None:
    limit = "limit on number of concurrent in-flight updates has been reached (10)"
    with pytest.raises(Unavailable) as said:
        raise gateways._rpc_error(RPCError(limit, RPCStatusCode.RESOURCE_EXHAUSTED, b""))
    assert (said.value.code, said.value.message.endswith(limit)) == ("mission_busy", True)


async def test_a_mission_runs_once(gateway: Gateway, mission: str, temporal_server: TemporalServer) -> None:
    await start(gateway, mission)
    await gateway.client.get_workflow_handle(f"mission/w/{mission}").terminate()
    for is_repeated in (False, True):
        error = await refused(start(gateway, mission, is_repeated=is_repeated))
        assert (type(error), error.code) == (Conflict, "already_running")
    error = await refused(UPDATES[0](gateway, mission))
    assert (type(error), error.code) == (Conflict, "mission_not_running")


async def attributes(gateway: Gateway, mission: str) -> dict[str, object]:
    """What the mission's workflow may be found by."""
    started = await gateway.client.get_workflow_handle(f"mission/w/{mission}").describe()
    return {pair.key.name: pair.value for pair in started.typed_search_attributes}


async def test_a_mission_can_be_found_in_temporal(gateway: Gateway, mission: str) -> None:
    await ensure_search_attributes(gateway.client)
    await start(gateway, mission)
    wanted = {"WorkspaceId": "w", "MissionId": mission, "Severity": "high"}
    assert await attributes(gateway, mission) == wanted
    assert set(wanted) == set(SearchAttribute), "what is registered is what is set"


async def test_a_server_that_does_not_know_the_attributes(
    gateway: Gateway, mission: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = TypedSearchAttributes([SearchAttributePair(SearchAttributeKey.for_keyword("Unregistered"), "x")])
    monkeypatch.setattr(gateways, "_searchable", lambda mission, severity: unknown)
    assert await start(gateway, mission)
    assert await attributes(gateway, mission) == {}
