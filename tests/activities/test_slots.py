"""Folders that change hands while what they hold goes."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from activities.workbench import slots
from models.domain.errors import Unavailable


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
