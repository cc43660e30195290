"""However a run ends - by itself, cancelled, its worker killed - nothing of it is left on the host."""

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from activities.workbench.limits import ControlGroups
from activities.workbench.sandbox import Sandbox
from activities.workbench.slots import runtime_folder
from tests.fixtures.sandboxes import EVERY_KIND, KINDS_THAT_HIDE, Bench, bench
from tests.fixtures.waiting import until

STUBBORN = "trap '' TERM HUP; (setsid sleep 600 &); touch started; while :; do sleep 60 & wait; done"

WORKER = """
import asyncio, sys
from pathlib import Path
from activities.workbench.command import Command, Mount
from activities.workbench.sandbox import Sandbox

async def main():
    kind, workspace, variable, line = sys.argv[1:]
    async def ignore(data): pass
    env = dict([variable.split("=")])
    command = Command(line, (Mount(Path(workspace), "/workspace", writable=True),), env)
    await Sandbox.detect(kind).run(command, ignore)

asyncio.run(main())
"""


@pytest.fixture(params=EVERY_KIND)
def anywhere(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


@pytest.fixture(params=KINDS_THAT_HIDE)
def isolated(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


def leaked(at: Bench) -> list[Path]:
    """Scratch folders and control groups of slots that nobody holds, and that no other bench's killed worker had."""
    places = ControlGroups.detect().places.values()
    found: list[Path] = []
    for folder in (runtime_folder() / "slots").iterdir():
        with (folder / "lock").open("w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            groups = (place / f"mission-control-{os.geteuid()}-{folder.name}" for place in places)
            if not is_of_another(folder, at):
                found += [left for left in (folder / "scratch", *groups) if left.exists()]
    return found


def is_of_another(slot: Path, at: Bench) -> bool:
    """Whether a slot's record names what was lent, and none of it is this bench's."""
    with suppress(FileNotFoundError):
        lent = json.loads((slot / "record.json").read_text()).get("lent", [])
        return bool(lent) and not any(Path(place).is_relative_to(at.root) for place, *_ in lent)
    return False


class TestCancellation:
    @pytest.mark.parametrize("times", [1, 3])
    async def test_ends_the_whole_tree_before_it_is_raised(self, anywhere: Bench, times: int) -> None:
        running = asyncio.create_task(anywhere.run(STUBBORN))
        await until((anywhere.workspace / "started").exists)
        for _ in range(times):
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert anywhere.survivors() == []
        assert leaked(anywhere) == []
        assert (anywhere.workspace / "started").stat().st_uid == os.geteuid()

    async def test_at_any_moment_leaves_nothing(self, isolated: Bench) -> None:
        """Cancelled after ever more turns of the loop, it is hit while it prepares, starts, runs and clears up."""
        for turns in range(0, 160, 5):
            running = asyncio.create_task(isolated.run("sleep 600"))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert isolated.survivors() == []
        assert leaked(isolated) == []


class TestDeathOfTheWorker:
    """A real process between us and the command is killed without warning."""

    async def test_takes_the_whole_tree_with_it(self, isolated: Bench) -> None:
        worker = self.start(isolated)
        await until((isolated.workspace / "started").exists)
        assert isolated.survivors()
        worker.kill()
        worker.wait()
        await until(lambda: isolated.survivors() == [], seconds=5)

    async def test_is_cleared_up_by_the_next_one(self, anywhere: Bench) -> None:
        worker = self.start(anywhere)
        await until((anywhere.workspace / "started").exists)
        worker.kill()
        worker.wait()
        Sandbox.detect(anywhere.sandbox.isolation.value)
        assert leaked(anywhere) == []
        assert anywhere.survivors() == []
        assert (anywhere.workspace / "started").stat().st_uid == os.geteuid()

    @staticmethod
    def start(at: Bench) -> psutil.Popen:
        arguments = (at.sandbox.isolation.value, str(at.workspace), f"TOKEN={at.token}", STUBBORN)
        return psutil.Popen([sys.executable, "-c", WORKER, *arguments])
