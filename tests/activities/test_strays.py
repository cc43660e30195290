"""The search for strays is worth something: it sees a running command under every kind of isolation, and then none."""

import asyncio

import pytest

from activities.workbench.sandbox import Preferred
from tests.fixtures.sandboxes import EVERY_KIND, bench
from tests.fixtures.strays import processes_in
from tests.fixtures.waiting import until


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_running_command_is_seen_by_the_folder_it_works_in(kind: Preferred) -> None:
    with bench(kind) as it:
        running = asyncio.create_task(it.run("sleep 60"))
        try:
            await until(lambda: bool(processes_in(it.workspace)))
            assert processes_in(it.root / "elsewhere") == []
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert processes_in(it.root) == []
