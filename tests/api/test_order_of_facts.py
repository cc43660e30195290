"""Several transactions change one thing: their events' numbers, and the stream, tell in which order (ADR 3)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.idempotency import Once
from models.contracts.pipeline import ControlRecord, StageRef
from models.domain.events import EventType, Subject
from models.domain.principals import Kind, Principal, Role
from models.domain.stages import StageName
from models.domain.states import DecisionStatus
from models.schemas.envelope import Success
from models.store import answers, api_keys, events, idempotency, missions, running
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.policies import merge_verdict, put
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]

OLGA, PETER = Actor("olga", "request-1"), Actor("peter", "request-2")
Change = Callable[[AsyncSession], Awaitable[object]]


async def stream(db: Database, team: Team, subject: str) -> list[tuple[str, int]]:
    """What is told of something, in the order of the stream: the type, and the number."""
    async with db.system() as session:
        found = await events.settled_after(session, events.BEGINNING, 100_000)
    own = [(place, event) for place, event in found if event.workspace_id == team.workspace_id]
    return [(event.type.value, place.id) for place, event in own if event.subject.id == subject]


async def listed(api: httpx2.AsyncClient, subject: str) -> list[str]:
    rows = (await api.get(f"/api/v1/audit?subject={subject}&sort=created_at")).json()["data"]["items"]
    return [row["action"] for row in rows]


def in_turn(told: list[tuple[str, int]]) -> bool:
    """Whether the stream tells it in the order in which it was."""
    return told == sorted(told, key=lambda fact: fact[1])


async def overtaken(db: Database, team: Team, late: Change, quick: Change) -> None:
    """Begin a request with an Idempotency-Key, and let another one come and end before it touches anything."""
    begun, may_go = asyncio.Event(), asyncio.Event()

    async def waits(session: AsyncSession) -> Success[None]:
        begun.set()
        await may_go.wait()
        await late(session)
        return Success(data=None)

    async def goes(session: AsyncSession) -> Success[None]:
        await quick(session)
        return Success(data=None)

    async def allowed() -> None:
        """Nobody's key has ended."""

    def keyed(name: str) -> Once:
        request = idempotency.Request(team.workspace_id, name, "POST /trial", "digest")
        return Once(lambda: db.workspace(team.workspace_id), 200, request, "request-1", allowed)

    waiting = asyncio.create_task(keyed("late").commit(waits))
    await begun.wait()
    await keyed("quick").commit(goes)
    may_go.set()
    await waiting


async def test_the_stream_may_turn_facts_round_and_their_numbers_and_the_log_do_not(
    db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo
) -> None:
    """Who has written something else before waits with a transaction id that is older than those who go ahead."""
    mission = (await filed(api, repo))["mission_id"]
    about, kind = Subject(kind="mission", id=mission), EventType.MISSION_NOTED

    async def note(session: AsyncSession, actor: Actor) -> None:
        await running.load(session, team.workspace_id, mission, for_update=True)
        await events.append(session, team.workspace_id, kind, about, actor)

    async with db.workspace(team.workspace_id) as early:
        await events.append(early, team.workspace_id, EventType.CAPA_CHANGED, Subject(kind="capa", id="c"), OLGA)
        async with db.workspace(team.workspace_id) as session:
            await note(session, PETER)
        await note(early, OLGA)
    async with db.system() as session:
        found = await events.settled_after(session, events.BEGINNING, 100_000)
    notes = [(place.id, event.actor) for place, event in found if event.type is kind and event.subject == about]
    assert [actor for _, actor in notes] == ["olga", "peter"], "as the transactions' ids are"
    assert [actor for _, actor in sorted(notes)] == ["peter", "olga"], "as it was"
    rows = (await api.get(f"/api/v1/audit?subject={mission}&action=mission.noted")).json()["data"]["items"]
    assert [row["actor"] for row in rows] == ["olga", "peter"], "the newest first"


class TestARequestWithAKey:
    async def test_for_an_answer_of_two(self, db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo) -> None:
        ref = StageRef(
            workspace_id=team.workspace_id,
            mission_id=(await filed(api, repo))["mission_id"],
            stage=StageName.GOVERNANCE,
        )
        async with db.workspace(team.workspace_id) as session:
            verdict = merge_verdict(protected=True)
            decision = await put(session, ref, verdict, {}, expires_in=timedelta(hours=1), people=2)

        def approves(name: str) -> Change:
            by = Principal(workspace_id=team.workspace_id, key_id="k", name=name, kind=Kind.HUMAN, role=Role.ADMIN)
            yes = DecisionStatus.APPROVED
            return lambda session: answers.give(session, by, decision.decision_id, yes, "read it", "r")

        await overtaken(db, team, late=approves("admin"), quick=approves("operator"))
        told = await stream(db, team, decision.decision_id)
        assert [kind for kind, _ in told] == ["decision.requested", "decision.approval_given", "decision.approved"]
        assert in_turn(told)

    async def test_for_a_key(self, db: Database, team: Team, api: httpx2.AsyncClient) -> None:
        made = (await api.post("/api/v1/keys", json={"principal": "ivan", "role": "operator"})).json()["data"]
        where = (team.workspace_id, made["key_id"])
        await overtaken(
            db,
            team,
            late=lambda session: api_keys.revoke(session, *where, OLGA),
            quick=lambda session: api_keys.rotate(session, *where, timedelta(hours=1), PETER),
        )
        told = await stream(db, team, made["key_id"])
        assert [kind for kind, _ in told] == ["api_key.created", "api_key.rotated", "api_key.revoked"]
        assert in_turn(told)
        assert await listed(api, made["key_id"]) == [kind for kind, _ in told]

    async def test_for_a_mission(self, db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await filed(api, repo)
        where = (team.workspace_id, mission["mission_id"])

        async def asks_for_it(session: AsyncSession) -> None:
            await running.load(session, *where, for_update=True)
            await missions.tell(session, *where, EventType.MISSION_EXECUTE_REQUESTED, PETER, {})

        await overtaken(
            db,
            team,
            late=lambda session: missions.cancel_open(session, *where, "no", OLGA),
            quick=asks_for_it,
        )
        told = await stream(db, team, mission["mission_id"])
        assert [kind for kind, _ in told][1:] == ["mission.execute_requested", "mission.escalated"]
        assert in_turn(told)


LATCH = """
CREATE FUNCTION test_latch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.entry_id = 'control/slow' THEN
        PERFORM pg_advisory_xact_lock(7);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER test_latch AFTER INSERT ON remediation_event FOR EACH ROW EXECUTE FUNCTION test_latch();
"""


@pytest.mark.parametrize("first", ["pause", "resume"])
async def test_commands_of_operators_are_told_as_they_came_to_the_mission(
    db: Database, team: Team, api: httpx2.AsyncClient, repo: Repo, database_url: str, first: str
) -> None:
    """One is held in the middle of writing itself down; whoever comes then stands behind it, or is told before it."""
    mission = (await filed(api, repo))["mission_id"]

    async def write(key: str, version: int, action: str) -> None:
        where: dict[str, Any] = {"workspace_id": team.workspace_id, "mission_id": mission}
        change = ControlRecord(**where, key=key, version=version, action=action, actor="olga", correlation_id="r")
        async with db.workspace(team.workspace_id) as session:
            await running.record_control(session, change)

    async with await psycopg.AsyncConnection.connect(plain(database_url), autocommit=True) as superuser:
        await superuser.execute(LATCH.encode())
        try:
            await superuser.execute("SELECT pg_advisory_lock(7)")
            slow = asyncio.create_task(write("slow", 1, first))
            await eventually(lambda: somebody_waits(superuser))
            quick = asyncio.create_task(write("quick", 2, "cancel"))

            async def settled() -> bool:
                return quick.done() or await somebody_waits(superuser, 2)

            await eventually(settled)
            await superuser.execute("SELECT pg_advisory_unlock(7)")
            await asyncio.gather(slow, quick)
        finally:
            await superuser.execute("DROP TRIGGER test_latch ON remediation_event; DROP FUNCTION test_latch")
    told = await stream(db, team, mission)
    assert len(told) == 3
    assert in_turn(told)


async def test_a_key_that_only_waits_has_no_transaction_id(db: Database, team: Team) -> None:
    request = idempotency.Request(team.workspace_id, "k", "POST /trial", "digest")
    async with db.workspace(team.workspace_id) as session:
        assert (await idempotency.hold(session, request)).is_new
        assigned = await session.execute(text("SELECT pg_current_xact_id_if_assigned()"))
        assert assigned.scalar_one() is None
