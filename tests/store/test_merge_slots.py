"""The row of a branch's merge slot: one holder, tokens that grow, and nobody who waits is forgotten."""

import asyncio
from uuid import uuid4

import pytest

from models.contracts.merge_queue import QueueRef, SlotRelease
from models.domain.repositories import RepositoryUrl
from models.schemas.repositories import RepositoryCreate
from models.store import merge_slots, repositories
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_workspace
from tests.fixtures.waiting import eventually, somebody_waits

A, B, C = (SlotRelease(workflow_id=name, run_id="run") for name in "abc")


@pytest.fixture
async def slot(db: Database) -> QueueRef:
    """A branch of a repository of its own."""
    workspace = f"team-{uuid4().hex[:12]}"
    async with db.system() as session:
        await make_workspace(session, workspace)
    place = RepositoryCreate(url=f"https://example.org/{workspace}.git")
    async with db.workspace(workspace) as session:
        made = await repositories.register(
            session, workspace, place, RepositoryUrl(place.url), "dev", Actor("olga", "request-1")
        )
    return QueueRef(workspace_id=workspace, repository_id=made.repository_id, branch="main")


async def claim(db: Database, slot: QueueRef, run: SlotRelease) -> int | None:
    async with db.workspace(slot.workspace_id) as session:
        return await merge_slots.claim(session, slot, run)


async def grant(db: Database, slot: QueueRef, run: SlotRelease, *left: SlotRelease) -> tuple[str, int]:
    async with db.workspace(slot.workspace_id) as session:
        holder, token = await merge_slots.grant(session, slot, run, left)
        return holder.workflow_id, token


async def release(db: Database, slot: QueueRef, run: SlotRelease) -> bool:
    return await merge_slots.release(db, slot, run)


async def test_a_free_slot_is_taken_once_and_its_tokens_grow(db: Database, slot: QueueRef) -> None:
    assert [await claim(db, slot, A), await claim(db, slot, A), await claim(db, slot, B)] == [1, 1, None]
    assert not await release(db, slot, A)
    assert await claim(db, slot, B) == 2


async def test_only_its_holder_finds_that_it_has_it(db: Database, slot: QueueRef) -> None:
    async def held(run: SlotRelease) -> int | None:
        async with db.workspace(slot.workspace_id) as session:
            return await merge_slots.held(session, slot, run)

    assert await held(A) is None
    await claim(db, slot, A)
    again = SlotRelease(workflow_id=A.workflow_id, run_id="another")
    assert [await held(run) for run in (A, B, again)] == [1, None, None]
    await release(db, slot, A)
    assert await held(A) is None, "a free one is for the queue to give"


async def test_of_many_at_once_one_takes_it(db: Database, slot: QueueRef) -> None:
    runs = [SlotRelease(workflow_id=f"m{n}", run_id="run") for n in range(10)]
    taken = await asyncio.gather(*(claim(db, slot, run) for run in runs))
    assert sorted(token for token in taken if token) == [1]


async def test_who_waits_is_told_of_the_release_and_nobody_goes_first(db: Database, slot: QueueRef) -> None:
    await claim(db, slot, A)
    assert await grant(db, slot, B) == ("a", 1), "it is held"
    assert [await release(db, slot, A), await release(db, slot, A)] == [True, True]
    assert await claim(db, slot, C) is None, "somebody waits"
    assert [await grant(db, slot, B), await grant(db, slot, B)] == [("b", 2), ("b", 2)]
    assert await release(db, slot, B), "who came by the queue gives back to the queue"
    assert await claim(db, slot, C) is None
    async with db.workspace(slot.workspace_id) as session:
        await merge_slots.settle(session, slot, [])
    assert await claim(db, slot, C) == 3


async def test_a_release_that_met_an_offer_tells_of_it(db: Database, slot: QueueRef) -> None:
    await claim(db, slot, A)
    async with db.workspace(slot.workspace_id) as offering:
        await merge_slots.grant(offering, slot, B, ())
        released = asyncio.create_task(release(db, slot, A))
        await eventually(lambda: somebody_waits(offering))
    assert await released


async def test_those_who_left_hold_it_no_more(db: Database, slot: QueueRef) -> None:
    await claim(db, slot, A)
    assert await grant(db, slot, B, A) == ("b", 2)
    async with db.workspace(slot.workspace_id) as session:
        await merge_slots.settle(session, slot, [B])
    assert await claim(db, slot, C) == 3
    async with db.workspace(slot.workspace_id) as session:
        await merge_slots.release_all(session, slot.workspace_id, "c")
    assert await claim(db, slot, A) == 4
