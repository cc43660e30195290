"""An export is read at one's leisure: it holds nothing from anybody else, and tells what is sealed meanwhile."""

from pathlib import Path

import pytest
from sqlalchemy import text

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain.errors import Conflict
from models.settings import Settings
from models.store import audit_export, audit_tree
from models.store.database import Database
from tests.fixtures.api import Team
from tests.fixtures.audit import act, as_superuser, filled, fresh_log, judged, key, new_key

__all__ = ["fresh_log", "key"]


async def test_a_slow_reader_holds_no_connection(db: Database, team: Team, database_url: str, tmp_path: Path) -> None:
    await filled(db, new_key(tmp_path), [team.workspace_id], 20)
    await act(db, team.workspace_id)
    narrow = Database.from_settings(Settings(DATABASE_URL=database_url), pool_size=1)
    given = 0
    async for _ in audit_export.pieces(narrow, team.workspace_id):
        async with narrow.system() as session:  # by the only connection: this waits in vain where the export keeps it
            given += (await session.execute(text("SELECT 1"))).scalar_one()
    await narrow.close()
    assert given >= 4  # the head, sealed rows, one that is not, the end


@pytest.mark.parametrize("is_sealed", [True, False])
async def test_a_piece_holds_few_acts_that_tell_much(
    db: Database, team: Team, key: ServiceKey, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    monkeypatch.setattr(audit_export, "BYTES_AT_ONCE", 10_000)
    await filled(db, key, [team.workspace_id], 5)
    for size in (4_000, 1, 30_000, 1, 1, 4_000):
        await act(db, team.workspace_id, 3, text="x" * size)
    if is_sealed:
        await Sealer(db, key).seal()
    pieces = [piece async for piece in audit_export.pieces(db, team.workspace_id)]
    verdict = judged("".join(pieces).rstrip("\n").split("\n"), key)
    assert (verdict.problem, verdict.rows, verdict.unsealed) == (None, *((23, 0) if is_sealed else (5, 18)))
    assert max(len(piece) for piece in pieces) < 10_000 + 30_000 + 23 * 1_000


async def test_what_is_sealed_meanwhile_is_given_as_not_sealed(db: Database, team: Team, key: ServiceKey) -> None:
    await filled(db, key, [team.workspace_id], 5)
    await act(db, team.workspace_id, 3)
    pieces = audit_export.pieces(db, team.workspace_id)
    told = await anext(pieces)
    await Sealer(db, key).seal()
    told += "".join([piece async for piece in pieces])
    verdict = judged(told.rstrip("\n").split("\n"), key)
    assert (verdict.problem, verdict.rows, verdict.unsealed) == (None, 5, 3)


async def test_nothing_is_proven_of_a_tree_with_a_hole(
    db: Database, team: Team, key: ServiceKey, database_url: str
) -> None:
    await filled(db, key, [team.workspace_id], 10)
    async with db.system() as session:
        assert await audit_tree.consistency_proof(session, 7, 10)
    as_superuser(database_url, "DELETE FROM audit_leaf WHERE tree_index = 3")
    async with db.system() as session:
        with pytest.raises(Conflict, match="hashes of the audit tree are gone"):
            await audit_tree.consistency_proof(session, 7, 10)
