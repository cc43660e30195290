"""Policies in Postgres: versions that nobody changes, and verdicts that name the one in force."""

import asyncio
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.actions import MERGE
from models.domain.errors import Unavailable
from models.domain.policy import Act, Context, Outcome, Policy, parse_policy
from models.settings import Settings
from models.store import policies
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from models.store.policies import PolicyBook
from tests.fixtures.api import Team
from tests.fixtures.policies import WORKER
from tests.fixtures.waiting import until

ANNA = Actor("anna", "request-1")
ACT = Act(action=MERGE, principal=WORKER, context=Context(facts={"ci_files": ("ci.yml",)}))
FROZEN = "rules:\n  - {rule: freeze, because: nothing moves, deny: true}\n"


@pytest.fixture
def book(settings: Settings) -> PolicyBook:
    """The policies as one process knows them."""
    return PolicyBook(settings.config_dir)


async def judge(db: Database, team: Team, book: PolicyBook, name: str = "one") -> tuple[Outcome, int]:
    async with db.workspace(team.workspace_id) as session:
        verdict, law = await book.judge(session, team.workspace_id, ACT, name)
        return verdict.outcome, law.version


async def replace(db: Database, team: Team, source: str = FROZEN) -> int:
    """Put another version in force, as another process would."""
    async with db.workspace(team.workspace_id) as session:
        made = await policies.create(session, team.workspace_id, source, "", ANNA)
        await policies.activate(session, team.workspace_id, made.version, ANNA)
        return made.version


async def kept(db: Database, team: Team) -> list[tuple[str, int, str]]:
    async with db.workspace(team.workspace_id) as session:
        rows = await policies.verdicts(session, team.workspace_id, 10)
    return sorted((row.verdict_id, row.policy_version, row.outcome) for row in rows)


async def test_a_replaced_policy_is_noticed_by_the_next_verdict(db: Database, team: Team, book: PolicyBook) -> None:
    assert await judge(db, team, book) == (Outcome.ASK, 1)
    assert await replace(db, team) == 2
    assert await judge(db, team, book, "two") == (Outcome.DENY, 2)
    assert await kept(db, team) == [("one", 1, "ask"), ("two", 2, "deny")]


async def test_a_verdict_is_kept_once_and_whole(db: Database, team: Team, book: PolicyBook) -> None:
    for _ in range(2):
        await judge(db, team, book)
    async with db.workspace(team.workspace_id) as session:
        [row] = await policies.verdicts(session, team.workspace_id, 10)
    assert Act.model_validate(row.input) == ACT
    assert row.rules == ["ci-files"]


async def test_a_known_policy_costs_one_statement(db: Database, team: Team, book: PolicyBook) -> None:
    await judge(db, team, book)
    async with db.workspace(team.workspace_id) as session:
        before = await _scans(session)
        await book.judge(session, team.workspace_id, ACT, "two")
        assert await _scans(session) == before, "the text of the policy was read again"


async def _scans(session: AsyncSession) -> int:
    statement = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = 'policy_version'"
    found = await session.execute(text(statement))
    return int(found.scalar_one_or_none() or 0)


async def test_two_at_once_begin_with_one_first_version(db: Database, team: Team, settings: Settings) -> None:
    async def one(number: int) -> int:
        async with db.workspace(team.workspace_id) as session:
            return (await PolicyBook(settings.config_dir).in_force(session, team.workspace_id)).version

    assert await asyncio.gather(*(one(number) for number in range(8))) == [1] * 8


async def test_a_long_policy_holds_up_its_own_workspace_alone(
    db: Database, team: Team, other_team: Team, book: PolicyBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reading is held here for as long as the test likes."""
    await judge(db, team, book)
    await replace(db, team)
    begun, read = threading.Event(), threading.Event()

    def slowly(source: str) -> Policy:
        if source == FROZEN:
            begun.set()
            assert read.wait(20)
        return parse_policy(source)

    monkeypatch.setattr(policies, "parse_policy", slowly)
    held = asyncio.create_task(judge(db, team, book, "held"))
    try:
        await until(begun.is_set)
        assert await asyncio.wait_for(judge(db, other_team, book), 10) == (Outcome.ASK, 1)
        assert not held.done()
    finally:
        read.set()
    assert await held == (Outcome.DENY, 2)


async def test_two_at_once_make_two_versions(db: Database, team: Team, book: PolicyBook) -> None:
    await judge(db, team, book)
    assert sorted(await asyncio.gather(*(replace(db, team) for _ in range(5)))) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("change", ["UPDATE policy_version SET source = ''", "DELETE FROM policy_version"])
async def test_nobody_changes_a_version(
    db: Database, team: Team, book: PolicyBook, database_url: str, change: str
) -> None:
    await judge(db, team, book)
    with pytest.raises(DBAPIError, match="permission denied"):
        async with db.workspace(team.workspace_id) as session:
            await session.execute(text(change))
    with psycopg.connect(plain(database_url)) as owner, pytest.raises(psycopg.errors.RaiseException, match="stands"):
        owner.execute(change)


async def test_an_edited_seed_changes_no_workspace_that_has_a_policy(
    db: Database, team: Team, book: PolicyBook, tmp_path: Path
) -> None:
    await judge(db, team, book)
    (tmp_path / "policy.yaml").write_text(FROZEN)
    assert await judge(db, team, PolicyBook(tmp_path), "two") == (Outcome.ASK, 1)


async def test_a_broken_seed_says_its_line(db: Database, team: Team, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules:\n  - {rule: a, because: b}\n")
    with pytest.raises(Unavailable, match=r"policy\.yaml: line 2"):
        await judge(db, team, PolicyBook(tmp_path))
    assert await kept(db, team) == []
