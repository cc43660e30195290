import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    WorkflowExecutionStatus,
)

from models.domain.errors import Conflict, InvalidInput, Unavailable
from models.settings import Settings
from worker.dev.temporal import BEGUN_AGAIN, DevTemporal, connect, running_workflows
from worker.dev.temporal_cli import TemporalCli, find_temporal_cli, go_command, read_version
from workflows.merge_queue import MergeQueueWorkflow
from workflows.reconcile import ReconcileWorkflow


@pytest.fixture
async def cli() -> TemporalCli:
    return await find_temporal_cli(Settings(), lambda _: None)


@pytest.fixture
async def server(cli: TemporalCli, open_dir: Path) -> AsyncIterator[DevTemporal]:
    async with DevTemporal(cli, open_dir) as server:
        yield server


async def start_workflow(client: Client, workflow_id: str) -> None:
    await client.start_workflow("NobodyRunsThis", id=workflow_id, task_queue="nobody")


async def status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    return (await client.get_workflow_handle(workflow_id).describe()).status


def become(server: DevTemporal, version: str) -> None:
    """Make the database look as if another server version had written it."""
    file = server.database.with_name("version.json")
    file.write_text(json.dumps({"cli": "1.0.0", "server": version}))


class TestServer:
    async def test_workflows_survive_sigkill(self, server: DevTemporal) -> None:
        await start_workflow(await connect(server.address), "kept")
        assert server.child
        await server.child.kill()
        await server.start()
        assert await status(await connect(server.address), "kept") is WorkflowExecutionStatus.RUNNING

    async def test_a_taken_port_is_an_error_that_shows_its_words(self, cli: TemporalCli, server: DevTemporal) -> None:
        second = DevTemporal(cli, server.database.parent / "second", port=server.port)
        with pytest.raises(Unavailable, match="address already in use"):
            await second.start()

    async def test_schedules_do_not_count_as_running(self, server: DevTemporal) -> None:
        client = await connect(server.address)
        action = ScheduleActionStartWorkflow("NobodyRunsThis", id="later", task_queue="nobody")
        spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(days=30))])
        await client.create_schedule("reconcile", Schedule(action=action, spec=spec))
        await server.stop()
        assert running_workflows(server.database) == []


class TestAnotherVersion:
    async def test_it_is_refused_while_workflows_run(self, server: DevTemporal) -> None:
        await start_workflow(await connect(server.address), "mission/default/1")
        await server.stop()
        become(server, "1.30.0")
        with pytest.raises(Conflict, match=r"1\.30\.0.*mission/default/1.*TEMPORAL_CLI_PATH"):
            await server.start()
        assert running_workflows(server.database) == ["mission/default/1"]

    async def test_a_finished_database_is_set_aside_and_kept(self, server: DevTemporal) -> None:
        client = await connect(server.address)
        await start_workflow(client, "done")
        await client.get_workflow_handle("done").terminate()
        await client.start_workflow("MergeQueueWorkflow", id="merge-queue/repository/main", task_queue="nobody")
        await server.stop()
        become(server, "1.30.0")
        await server.start()
        kept = [file.name for file in server.database.parent.glob("server-1.30.0-*/*")]
        assert "temporal.db" in kept

    async def test_the_same_version_goes_on(self, server: DevTemporal) -> None:
        await start_workflow(await connect(server.address), "kept")
        await server.stop()
        await server.start()
        assert await status(await connect(server.address), "kept") is WorkflowExecutionStatus.RUNNING


def test_what_is_begun_again_is_named_as_it_is_now() -> None:
    assert {MergeQueueWorkflow.__name__, ReconcileWorkflow.__name__} == set(BEGUN_AGAIN)


class TestFindingTheCli:
    async def test_a_path_that_was_set_and_is_none_is_an_error(self, tmp_path: Path) -> None:
        settings = Settings().model_copy(update={"temporal_cli_path": tmp_path / "missing"})
        with pytest.raises(InvalidInput, match="TEMPORAL_CLI_PATH"):
            await find_temporal_cli(settings, lambda _: None)

    async def test_a_path_that_was_set_is_taken(self, cli: TemporalCli) -> None:
        settings = Settings().model_copy(update={"temporal_cli_path": cli.path})
        assert await find_temporal_cli(settings, lambda _: None) == cli

    @pytest.mark.parametrize(("version", "taken"), [("1.8.0", True), ("1.10.1", True), ("1.7.9", False)])
    async def test_one_on_path_is_taken_if_recent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: TemporalCli, version: str, taken: bool
    ) -> None:
        program = tmp_path / "temporal"
        program.write_text(f"#!/bin/sh\necho 'temporal version {version} (Server 1.31.0, UI 2.50.1)'\n")
        program.chmod(0o755)
        cache = tmp_path / "cache" / "temporal-1.8.2"
        cache.mkdir(parents=True)
        (cache / "temporal").symlink_to(cli.path)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        settings = Settings().model_copy(update={"cache_dir": tmp_path / "cache"})
        found = await find_temporal_cli(settings, lambda _: None)
        assert found.path == (program if taken else cache / "temporal")

    def test_something_else_is_no_cli(self) -> None:
        assert read_version(Path("/bin/true")) is None

    def test_without_go_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        if Path("/usr/local/go/bin/go").exists():
            assert go_command() == ["/usr/local/go/bin/go"]
        else:
            with pytest.raises(Unavailable, match="install Go"):
                go_command()
