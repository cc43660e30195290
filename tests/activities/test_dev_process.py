import signal
from pathlib import Path

import psutil
import pytest

from models.domain.errors import Unavailable
from tests.fixtures.waiting import until
from worker.dev.process import Child, Server
from worker.dev.state import ProcessRecord, stop_leftovers
from worker.dev.supervisor import supervise

POLITE = "sleep 60; exit"  # two commands: a shell replaces itself with the only one, and the argv with it
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


async def run(script: str, folder: Path) -> Child:
    return await Child.spawn(["sh", "-c", script], log=folder / "out.log", death_signal=signal.SIGTERM)


class Script(Server):
    """A server that serves once it has said `ready`."""

    name = "script"
    start_seconds = 5.0

    def __init__(self, line: str, folder: Path) -> None:
        self.line, self.folder = line, folder
        self.starts = 0

    async def _spawn(self) -> Child:
        self.starts += 1
        (self.folder / "out.log").unlink(missing_ok=True)
        return await run(self.line, self.folder)

    async def _answers(self) -> bool:
        return "ready" in (self.folder / "out.log").read_text()


class TestChild:
    async def test_a_polite_stop_is_enough_for_most(self, tmp_path: Path) -> None:
        child = await run(POLITE, tmp_path)
        await child.stop(signal.SIGTERM, 10)
        assert child.exit_code == -signal.SIGTERM

    async def test_what_ignores_it_is_killed_with_its_group(self, tmp_path: Path) -> None:
        server = Script(STUBBORN, tmp_path)
        await server.start()
        assert server.child
        family = psutil.Process(server.child.pid).children()
        await server.stop(grace=0.2)
        assert server.child.exit_code == -signal.SIGKILL
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)

    async def test_stopping_twice_is_harmless(self, tmp_path: Path) -> None:
        child = await run("exit 3", tmp_path)
        await child.stop(signal.SIGTERM, 1)
        await child.stop(signal.SIGTERM, 1)
        assert child.exit_code is not None


class TestStart:
    async def test_a_server_that_ends_is_an_error_with_its_last_words(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"(?s)code 4.*no disk left"):
            await Script("echo no disk left; exit 4", tmp_path).start()

    async def test_a_server_that_never_answers_is_stopped(self, tmp_path: Path) -> None:
        server = Script(POLITE, tmp_path)
        server.start_seconds = 0.3  # type: ignore[misc]  # shorter than the class says
        with pytest.raises(Unavailable, match="did not answer"):
            await server.start()
        assert server.child
        assert server.child.exit_code is not None


async def test_a_dead_server_is_started_again_later_and_later(tmp_path: Path) -> None:
    server = Script("echo ready; sleep 0.2; exit 5", tmp_path)
    await server.start()
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        if server.starts == 3:
            raise EOFError  # enough seen

    with pytest.raises(EOFError):
        await supervise(server, lambda: None, report)
    await server.stop()
    assert said[0] == "script ended (exit code 5); starting it again in 0.5 s"
    assert said[1] == "script is up again"
    assert said[2] == "script ended (exit code 5); starting it again in 1 s"


class TestLeftovers:
    async def test_they_are_stopped(self, tmp_path: Path) -> None:
        child = await run(POLITE, tmp_path)
        record = ProcessRecord.of(child)
        await until(lambda: record.find() is not None)
        assert stop_leftovers({"worker": record}) == ["worker"]
        assert await child.wait() == -signal.SIGTERM

    async def test_a_reused_pid_is_left_alone(self, tmp_path: Path) -> None:
        child = await run(POLITE, tmp_path)
        record = ProcessRecord.of(child)
        later = record.model_copy(update={"started_at": record.started_at + 60})
        other = record.model_copy(update={"argv": ["postgres"]})
        assert stop_leftovers({"worker": later, "api": other}) == []
        assert child.exit_code is None
        await child.kill()

    async def test_one_that_has_ended_is_no_leftover(self, tmp_path: Path) -> None:
        child = await run(POLITE, tmp_path)
        record = ProcessRecord.of(child)
        await child.kill()
        assert stop_leftovers({"worker": record}) == []
