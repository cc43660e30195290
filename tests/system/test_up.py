"""`mission-control up` as an operator meets it: a process, its children, and what is left when things are killed."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from models.settings import Settings
from models.store.connections import plain
from models.store.migrate import migrate
from tests.fixtures.git_repos import make_repo
from tests.fixtures.servers import PostgresServer, TemporalServer
from tests.fixtures.waiting import until
from worker.dev.doctor import as_running
from worker.dev.state import UpState, read_state

PROGRAM = Path(sys.executable).with_name("mission-control")
ANY_PORTS = {f"MC_{name}_PORT": "0" for name in ("API", "POSTGRES", "TEMPORAL", "TEMPORAL_UI", "METRICS")}
# Two starts of the whole product fit in this also where other work takes the cores.
pytestmark = pytest.mark.timeout(300)
ALL_PARTS = {"postgres", "temporal", "worker", "api"}


class Up:
    """One `mission-control up` on a data folder, with everything it says."""

    def __init__(self, data_dir: Path, env: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.said: list[str] = []
        self._env = {**os.environ, **ANY_PORTS, "MC_DATA_DIR": str(data_dir), **env}

    async def start(self) -> None:
        """Start it; it may still be starting its parts on return."""
        self.process = await asyncio.create_subprocess_exec(
            PROGRAM, "up", env=self._env, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.said.append(line.decode().rstrip())

    def says(self, words: str) -> bool:
        """Whether a line with these words has been printed."""
        return any(words in line for line in self.said)

    async def ready(self) -> None:
        """Wait for the line that says where everything is."""
        await until(lambda: self.says("Ctrl-C stops all") or self.process.returncode is not None, 90)
        assert self.process.returncode is None, "\n".join(self.said)

    async def ended(self, *signals: signal.Signals) -> int:
        """Send the signals, wait for its end, and return the exit code."""
        for number in signals:
            self.process.send_signal(number)
        code = await self.process.wait()
        await self._reading
        return code

    @property
    def state(self) -> UpState:
        """What it wrote down last."""
        state = read_state(self.data_dir)
        assert state
        return state

    @property
    def living(self) -> set[str]:
        """Names of the parts that live now."""
        return {name for name, record in self.state.children.items() if record.find()}


@pytest.fixture
async def up(open_dir: Path) -> AsyncIterator[Up]:
    up = Up(open_dir, {})
    yield up
    if up.process.returncode is None:
        await up.ended(signal.SIGTERM)


async def api_ready(up: Up) -> bool:
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{up.state.addresses.api_url}/readyz")).is_success
        except httpx2.HTTPError:
            return False


async def test_all_parts_run_and_stop_in_order(up: Up) -> None:
    await up.start()
    await up.ready()
    assert up.living == ALL_PARTS
    assert await api_ready(up)

    second = Up(up.data_dir, {})
    await second.start()
    assert await second.ended() == 1
    assert second.says(f"already runs on {up.data_dir} (process {up.process.pid}")

    assert await up.ended(signal.SIGINT) == 0
    assert up.said[-4:] == [f"{name} is stopped" for name in ("api", "worker", "temporal", "postgres")]
    assert up.living == set()


async def test_a_dead_part_is_started_again(up: Up) -> None:
    await up.start()
    await up.ready()
    before = up.state.children
    for record in before.values():
        os.kill(record.pid, signal.SIGKILL)
    for name in ALL_PARTS:
        await until(lambda name=name: up.says(f"{name} is up again"), 60)  # type: ignore[misc]  # bound now
        assert up.state.children[name].pid != before[name].pid
    assert up.living == ALL_PARTS
    assert await api_ready(up)


async def test_after_sigkill_nothing_is_left_and_the_next_one_has_the_data(up: Up) -> None:
    await up.start()
    await up.ready()
    with psycopg.connect(database(up)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    await up.ended(signal.SIGKILL)
    await until(lambda: up.living == set())

    again = Up(up.data_dir, {})
    await again.start()
    await again.ready()
    with psycopg.connect(database(again)) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    assert await again.ended(signal.SIGTERM) == 0


async def test_what_outlived_a_killed_one_is_stopped_by_the_next(up: Up) -> None:
    await up.start()
    await up.ready()
    frozen = up.state.children["temporal"]
    os.kill(frozen.pid, signal.SIGSTOP)  # it cannot act on the signal of its parent's death
    await up.ended(signal.SIGKILL)

    again = Up(up.data_dir, {})
    await again.start()
    await again.ready()
    [told] = [line for line in again.said if "left running" in line]
    assert "temporal" in told
    assert again.said.index(told) < again.said.index("starting postgres") < again.said.index("starting worker")
    assert frozen.find() is None
    assert await again.ended(signal.SIGTERM) == 0


@pytest.mark.parametrize("catalog", [None, "metrics: [\n"])
async def test_a_configuration_that_no_worker_would_take_starts_nothing(open_dir: Path, catalog: str | None) -> None:
    folder = open_dir / "config"
    folder.mkdir()
    if catalog is not None:
        (folder / "metrics_catalog.yaml").write_text(catalog)
    up = Up(open_dir / "data", {"MC_CONFIG_DIR": str(folder)})
    await up.start()
    assert await up.ended() == 2
    [said] = up.said
    assert said.startswith("config_dir_unusable: metrics")
    assert f"mend {folder}, or point MC_CONFIG_DIR" in said
    assert not up.data_dir.exists()


async def test_repositories_outside_the_roots_are_named(open_dir: Path) -> None:
    stays, goes = (make_repo(open_dir / name / name).path for name in ("stays", "goes"))
    both = Up(open_dir / "data", {"MC_REPOSITORY_ROOTS": f"{stays.parent}:{goes.parent}"})
    await both.start()
    await both.ready()
    await register(both, stays)
    await register(both, goes)
    assert not both.says("outside MC_REPOSITORY_ROOTS")
    assert (await doctor(both))["ok"], "it judges by the roots of the one that runs, not by its own"
    assert await both.ended(signal.SIGTERM) == 0

    one = Up(open_dir / "data", {"MC_REPOSITORY_ROOTS": str(stays.parent)})
    await one.start()
    await one.ready()
    [told] = [line for line in one.said if "outside MC_REPOSITORY_ROOTS" in line]
    found = await doctor(one)
    assert await one.ended(signal.SIGTERM) == 0
    assert not found["ok"]
    for said in (told, found["detail"]):
        assert str(goes) in said
        assert str(stays) not in said
    assert "add a folder above" in found["mend"]


async def register(up: Up, path: Path) -> None:
    key = (up.data_dir / "admin.key").read_text().strip()
    async with httpx2.AsyncClient(trust_env=False, headers={"X-API-Key": key}) as client:
        answer = await client.post(f"{up.state.addresses.api_url}/api/v1/repositories", json={"url": str(path)})
    assert answer.status_code == 201, answer.text


async def doctor(up: Up) -> dict[str, Any]:
    """What `mission-control doctor`, which knows the data folder alone, finds of the repositories."""
    env = {**os.environ, **ANY_PORTS, "MC_DATA_DIR": str(up.data_dir)}
    asked = await asyncio.create_subprocess_exec(PROGRAM, "doctor", "--json", env=env, stdout=asyncio.subprocess.PIPE)
    [found] = [part for part in json.loads((await asked.communicate())[0]) if part["name"] == "repositories"]
    return dict(found)


async def test_a_second_signal_does_not_wait_for_a_part_that_hangs(up: Up) -> None:
    await up.start()
    await up.ready()
    os.kill(up.state.children["worker"].pid, signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    await until(lambda: up.says("api is stopped"))
    assert await asyncio.wait_for(up.ended(signal.SIGINT), 8) == 0
    assert up.living == set()


async def test_servers_of_the_operator_take_the_place_of_ours(
    open_dir: Path, postgres_server: PostgresServer, temporal_server: TemporalServer
) -> None:
    env = {
        "DATABASE_URL": postgres_server.create_database(),
        "TEMPORAL_ADDRESS": temporal_server.address,
        "MC_TASK_QUEUE_PREFIX": f"{open_dir.name}-",
    }
    up = Up(open_dir, env)
    await up.start()
    await up.ready()
    assert up.living == {"worker", "api"}
    assert await api_ready(up)
    assert await up.ended(signal.SIGTERM) == 0


async def test_a_taken_port_that_was_asked_for_names_its_holder(open_dir: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        up = Up(open_dir, {"MC_POSTGRES_PORT": str(port)})
        await up.start()
        assert await up.ended() == 1
    assert up.says(f"port {port} (MC_POSTGRES_PORT) is taken by process {os.getpid()} ")
    assert up.living == set()


async def test_a_schema_that_cannot_work_ends_it_at_once(
    open_dir: Path, postgres_server: PostgresServer, temporal_server: TemporalServer
) -> None:
    url = postgres_server.create_database()
    migrate(url)
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("ALTER TABLE principal RENAME COLUMN role TO rank")
    up = Up(open_dir, {"DATABASE_URL": url, "TEMPORAL_ADDRESS": temporal_server.address})
    await up.start()
    assert await up.ended() == 1
    [told] = [line for line in up.said if line.startswith("schema_differs")]
    assert "principal.role does not exist" in told
    assert "Restore it from a dump" in told
    assert not up.says("did not answer within")
    assert up.living == set()


async def test_a_temporal_that_does_not_answer_is_named(open_dir: Path) -> None:
    up = Up(open_dir, {"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    await up.start()
    assert await up.ended() == 2
    assert up.says("temporal_unreachable: TEMPORAL_ADDRESS 127.0.0.1:1 does not serve (Connection refused): see that")
    assert not any("tonic" in line for line in up.said)
    assert up.living == set()


def database(up: Up) -> str:
    url = as_running(Settings().model_copy(update={"data_dir": up.data_dir})).database_url
    assert url
    return plain(url.get_secret_value())
