"""Folders that change hands while what they hold goes."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from activities.workbench import slots
from activities.workbench.slots import Slots
from models.domain.errors import Unavailable
from tests.fixtures.sandboxes import bench


async def test_a_folder_that_goes_while_it_changes_hands_is_no_trouble(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in range(2_000):
            (folder / str(name)).touch()
        going = asyncio.create_task(asyncio.to_thread(shutil.rmtree, folder))
        await slots._chown(str(folder), os.geteuid(), os.getegid())
        await going


async def test_one_that_stays_as_it_was_is_said(tmp_path: Path) -> None:
    (tmp_path / "held").touch()
    with pytest.raises(Unavailable, match="cannot change hands"):
        await slots._chown(str(tmp_path), -5, -5)


async def test_what_another_worker_is_giving_back_is_not_lent_before_it_has(tmp_path: Path) -> None:
    """Else that worker takes the folder from under the command of whoever goes on with a dead one's work."""
    all_slots, folder = Slots(tmp_path), tmp_path / "tree"
    folder.mkdir()
    async with all_slots.lease() as dead:
        dead._remember(lent=[(str(folder), os.geteuid(), os.getegid())])
        async with all_slots.lease() as ours:
            waiting = asyncio.create_task(all_slots.returned([folder]))
            await all_slots.returned([tmp_path / "another"])
            await asyncio.wait([waiting], timeout=0.5)
            assert not waiting.done()
            assert ours.number != dead.number
    await waiting


async def test_no_command_begins_in_a_folder_that_is_being_given_back() -> None:
    with bench("auto") as ours, bench("auto") as another:
        async with ours.sandbox._slots.lease() as dead:
            dead._remember(lent=[(str(ours.workspace), os.geteuid(), os.getegid())])
            waiting = asyncio.create_task(ours.run("echo begun"))
            for _ in range(3):
                assert (await another.run("true")).ok  # begun later, and over
            assert not ours.printed
        assert (await waiting).ok
    assert ours.text == "begun\n"
