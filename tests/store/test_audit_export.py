"""Reading an export at one's leisure takes nothing from anybody else."""

from pathlib import Path

from sqlalchemy import text

from models.settings import Settings
from models.store import audit_export
from models.store.database import Database
from tests.fixtures.api import Team
from tests.fixtures.audit import act, filled, new_key


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
