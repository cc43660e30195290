"""A log that was taken back in the database, or written anew there, is not signed by who had signed it before."""

from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain.errors import Conflict
from models.store import audit_tree
from models.store.database import Database
from models.tables.audit import AuditCheckpoint
from tests.fixtures.api import Team
from tests.fixtures.audit import act, as_superuser, exported, fresh_log, judged, key, new_key

__all__ = ["fresh_log", "key"]

FORGED = "UPDATE audit SET actor = 'mallory' WHERE id NOT IN (SELECT id FROM audit_leaf)"
NO_TAIL = "DELETE FROM audit_checkpoint WHERE size > 10; DELETE FROM audit_leaf WHERE tree_index >= 10"
NO_TREE = "TRUNCATE audit_checkpoint, audit_leaf, audit_node, audit_workspace"
NO_ROWS = "DELETE FROM audit WHERE id IN (SELECT id FROM audit_leaf WHERE tree_index >= 10)"


@pytest.fixture
async def sealer(db: Database, team: Team, key: ServiceKey, tmp_path: Path) -> Sealer:
    """One who remembers, and has sealed twenty rows in four checkpoints."""
    sealer = Sealer(db, key, memory=tmp_path / "signed")
    for _ in range(4):
        await act(db, team.workspace_id, 5)
        assert await sealer.seal() == 5
    return sealer


@pytest.mark.parametrize("done", [NO_TAIL, NO_TREE], ids=["tail", "all"])
async def test_it_is_not_signed_anew(
    sealer: Sealer, db: Database, team: Team, key: ServiceKey, database_url: str, done: str
) -> None:
    as_superuser(database_url, f"{done}; {FORGED}")
    with pytest.raises(Conflict, match="somebody took it back") as refused:
        await sealer.seal()
    assert (refused.value.code, refused.value.details) == ("audit_taken_back", {"size": 20})
    assert judged(await exported(db, team.workspace_id), key).unsealed >= 10, "nothing was signed"
    assert await Sealer(db, key).seal() >= 10, "who remembers nothing signs it: a kept checkpoint is what finds it then"


async def test_nor_what_follows_on_a_shorter_one(
    sealer: Sealer, db: Database, team: Team, key: ServiceKey, database_url: str
) -> None:
    as_superuser(database_url, "; ".join((NO_ROWS, NO_TAIL)))
    assert judged(await exported(db, team.workspace_id), key).is_good, "a shorter log verifies"
    await act(db, team.workspace_id, 30)
    with pytest.raises(Conflict, match="checkpoint 20"):
        await sealer.seal()


async def test_another_database_is_told_from_one_that_was_taken_back(
    sealer: Sealer, db: Database, team: Team, database_url: str
) -> None:
    as_superuser(database_url, "UPDATE installation SET origin = 'mission-control/another'")
    await act(db, team.workspace_id)
    with pytest.raises(
        Conflict, match="has the log mission-control/another: where another database is meant"
    ) as refused:
        await sealer.seal()
    assert refused.value.code == "audit_other_log"


MOVED = """
    UPDATE audit_checkpoint SET xid = (SELECT max(xid) FROM audit) WHERE size = 20;
    UPDATE audit SET xid = (SELECT max(xid) FROM audit) WHERE id = (SELECT id FROM audit_leaf WHERE tree_index = 19)
"""
LED_ELSEWHERE = """
    UPDATE audit_checkpoint c SET (epoch, xid, id) = (SELECT a.epoch, a.xid, a.id FROM audit a
        ORDER BY a.epoch DESC, a.xid DESC, a.id DESC LIMIT 1) WHERE c.size = 20;
    UPDATE audit_leaf SET id = (SELECT id FROM audit_checkpoint WHERE size = 20) WHERE tree_index = 19
"""


@pytest.mark.parametrize("done", [MOVED, LED_ELSEWHERE], ids=["row", "leaf"])
async def test_rows_that_wait_are_not_passed_over(
    sealer: Sealer, db: Database, team: Team, database_url: str, done: str
) -> None:
    """The last sealed row is moved behind them, in all tables."""
    for _ in range(2):
        await act(db, team.workspace_id, 3)
    as_superuser(database_url, done)
    await act(db, team.workspace_id)
    with pytest.raises(Conflict, match="its last row is gone, or was changed"):
        await sealer.seal()


async def test_what_another_worker_signed_is_remembered_too(
    sealer: Sealer, db: Database, team: Team, key: ServiceKey, tmp_path: Path, database_url: str
) -> None:
    other = Sealer(db, key, memory=tmp_path / "other")
    assert await other.seal() == 0
    assert (tmp_path / "other").read_text() == (tmp_path / "signed").read_text()
    as_superuser(database_url, "; ".join((NO_ROWS, NO_TAIL)))
    for either in (other, sealer):
        with pytest.raises(Conflict, match="checkpoint 20"):  # though nothing waits
            await either.seal()


async def test_no_older_one_in_the_place_of_a_newer_one(sealer: Sealer, tmp_path: Path, database_url: str) -> None:
    """As if nothing waited, so that nothing is sealed on it."""
    signed = (tmp_path / "signed").read_text()
    lure = """
        INSERT INTO audit_checkpoint (size, note, key_id, epoch, xid, id)
        SELECT 1000, (SELECT note FROM audit_checkpoint WHERE size = 10), key_id, epoch, xid, id
        FROM audit_checkpoint WHERE size = 20;
        UPDATE audit_leaf SET tree_index = 999 WHERE tree_index = 19
    """
    for done in (lure, f"{NO_TAIL}; {FORGED}"):
        as_superuser(database_url, done)
        with pytest.raises(Conflict, match="checkpoint 20"):
            await sealer.seal()
        assert (tmp_path / "signed").read_text() == signed


async def test_a_checkpoint_that_was_put_back_is_no_way_around(
    sealer: Sealer, db: Database, team: Team, tmp_path: Path, database_url: str
) -> None:
    """The log is written anew and sealed with another key, further than what is remembered, whose row is put back.

    Nothing that stands in the row of a checkpoint says what the tree begins with.
    """
    await act(db, team.workspace_id)
    as_superuser(database_url, f"{PUT_ASIDE}; {NO_TAIL}; {FORGED}")
    assert await Sealer(db, new_key(tmp_path, "mallory")).seal() == 11
    as_superuser(database_url, "INSERT INTO audit_checkpoint SELECT * FROM put_aside; DROP TABLE put_aside")
    for waiting in (0, 1):
        await act(db, team.workspace_id, waiting)
        with pytest.raises(Conflict, match="begin with the checkpoint 20 that was signed: somebody wrote it anew"):
            await sealer.seal()


PUT_ASIDE = "CREATE TABLE put_aside AS SELECT * FROM audit_checkpoint WHERE size = 20"


async def test_a_database_that_says_one_thing_and_another_leads_nobody_back(
    sealer: Sealer, tmp_path: Path, database_url: str
) -> None:
    """It shows the newest checkpoint to who asks for a certain one, and an older one to who asks for the newest."""
    signed = (tmp_path / "signed").read_text()
    as_superuser(database_url, TWO_FACED)
    try:
        with suppress(Conflict):
            await sealer.seal()
    finally:
        as_superuser(database_url, "DROP VIEW audit_checkpoint; ALTER TABLE hidden RENAME TO audit_checkpoint")
    assert (tmp_path / "signed").read_text() == signed


TWO_FACED = """
    ALTER TABLE audit_checkpoint RENAME TO hidden;
    CREATE VIEW audit_checkpoint AS SELECT * FROM hidden
        WHERE size <= 10 OR NOT current_query() ~ 'ORDER BY audit_checkpoint.size DESC';
    GRANT ALL ON audit_checkpoint TO PUBLIC
"""


async def test_it_is_taken_back_while_somebody_looks(
    sealer: Sealer, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question for what is remembered and the one for the newest."""
    signed, latest = (tmp_path / "signed").read_text(), audit_tree.latest

    async def late(session: AsyncSession) -> AuditCheckpoint | None:
        as_superuser(database_url, f"{NO_TAIL}; {FORGED}")
        return await latest(session)

    with monkeypatch.context() as patched:
        patched.setattr(audit_tree, "latest", late)
        with suppress(Conflict):
            await sealer.seal()
    assert (tmp_path / "signed").read_text() == signed
    with pytest.raises(Conflict, match="checkpoint 20"):
        await sealer.seal()


@pytest.fixture
async def unheard(sealer: Sealer, db: Database, tmp_path: Path) -> Sealer:
    """One who gave checkpoint 20 to a transaction, knows 10, and died before it heard whether 20 is in."""
    async with db.system() as session:
        _, known, _, given = await audit_tree.checkpoints_after(session, 0, 4)
        (tmp_path / "signed").write_text(f"{known.note}\n---\n{given.note}")
    return sealer


async def test_what_nobody_heard_of_is_not_forgotten(
    unheard: Sealer, db: Database, team: Team, database_url: str
) -> None:
    as_superuser(database_url, f"{NO_TAIL}; {FORGED}")
    await act(db, team.workspace_id, 5)
    with pytest.raises(Conflict, match="begin with the checkpoint 20 that was signed: somebody wrote it anew"):
        await unheard.seal()


@pytest.mark.parametrize(("done", "sealed"), [("SELECT 1", 3), (NO_TAIL, 13)], ids=["in", "lost"])
async def test_whatever_became_of_it_sealing_goes_on(
    unheard: Sealer,
    db: Database,
    team: Team,
    key: ServiceKey,
    tmp_path: Path,
    database_url: str,
    done: str,
    sealed: int,
) -> None:
    """A transaction that was lost leaves the rows behind checkpoint 10 as they were, and not sealed."""
    as_superuser(database_url, done)
    await act(db, team.workspace_id, 3)
    assert await unheard.seal() == sealed
    kept = (tmp_path / "signed").read_text()
    assert "---" not in kept
    assert judged(await exported(db, team.workspace_id), key, kept=kept).rows == 23


async def test_rows_that_go_while_nobody_heard_are_missed(
    unheard: Sealer, db: Database, team: Team, database_url: str
) -> None:
    as_superuser(database_url, "; ".join((NO_ROWS, NO_TAIL)))
    await act(db, team.workspace_id)
    with pytest.raises(Conflict, match="checkpoint 20"):
        await unheard.seal()


async def test_it_is_remembered_before_it_can_be_in(
    sealer: Sealer, db: Database, team: Team, tmp_path: Path, database_url: str
) -> None:
    """The commit fails, as by a constraint that is looked at last: what was to be signed stands in the memory."""
    before = (tmp_path / "signed").read_text()
    as_superuser(database_url, AT_LAST)
    await act(db, team.workspace_id, 3)
    with pytest.raises(DBAPIError, match="no commit today"):
        await sealer.seal()
    known, _, given = (tmp_path / "signed").read_text().partition("\n---\n")
    assert (known, given.splitlines()[1]) == (before, "23")
    as_superuser(database_url, "DROP TRIGGER at_last ON audit_checkpoint")
    assert await sealer.seal() == 3


AT_LAST = """
    CREATE OR REPLACE FUNCTION at_last() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no commit today'; END $$;
    CREATE CONSTRAINT TRIGGER at_last AFTER INSERT ON audit_checkpoint DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION at_last()
"""


async def test_what_cannot_be_remembered_is_told_of(db: Database, team: Team, key: ServiceKey, tmp_path: Path) -> None:
    await act(db, team.workspace_id)
    with pytest.raises(Conflict, match="cannot be kept in signed: No such file or directory") as refused:
        await Sealer(db, key, memory=tmp_path / "gone" / "signed").seal()
    assert refused.value.code == "audit_memory_unwritable"


async def test_another_keys_is_not(sealer: Sealer, db: Database, tmp_path: Path) -> None:
    other = Sealer(db, new_key(tmp_path, "another"), memory=tmp_path / "other")
    assert await other.seal() == 0
    assert not (tmp_path / "other").exists()


async def test_a_memory_that_is_no_file_is_told_of(sealer: Sealer, db: Database, team: Team, tmp_path: Path) -> None:
    (tmp_path / "signed").unlink()
    (tmp_path / "signed").mkdir()
    await act(db, team.workspace_id)
    with pytest.raises(Conflict, match="cannot be read"):
        await sealer.seal()


async def test_who_died_between_signing_and_remembering_goes_on(
    sealer: Sealer, db: Database, team: Team, key: ServiceKey, tmp_path: Path
) -> None:
    memory = tmp_path / "signed"
    before = memory.read_text()
    await act(db, team.workspace_id, 3)
    await sealer.seal()
    memory.write_text(before)
    await act(db, team.workspace_id, 2)
    assert await sealer.seal() == 2
    assert judged(await exported(db, team.workspace_id), key, kept=memory.read_text()).rows == 25


async def test_leaves_behind_the_last_checkpoint_are_none_of_its(
    sealer: Sealer, db: Database, team: Team, key: ServiceKey, database_url: str
) -> None:
    """Checkpoints are gone, so that all rows look as if they waited; the leaves tell."""
    as_superuser(database_url, "DELETE FROM audit_checkpoint; UPDATE audit SET actor = 'mallory'")
    problem = judged(await exported(db, team.workspace_id), key).problem
    assert problem
    assert (problem.code, problem.between) == ("leaves_changed", (0, 20))
    with pytest.raises(Conflict) as refused:
        await Sealer(db, key).seal()
    assert refused.value.code == "audit_tree_broken"
