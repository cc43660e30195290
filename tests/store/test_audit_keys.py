"""Keys that sign the audit log rotate, and none of its users' secrets enters it."""

from pathlib import Path

import psycopg

from activities.workbench.signing import ServiceKey
from models.domain.principals import Kind
from models.store.connections import plain
from models.store.database import Database
from tests.fixtures.access import make_key
from tests.fixtures.api import Team
from tests.fixtures.audit import act, exported, filled, fresh_log, judged, key, new_key

__all__ = ["fresh_log", "key"]


async def test_they_rotate_and_old_checkpoints_stay_verifiable(
    db: Database, team: Team, key: ServiceKey, tmp_path: Path
) -> None:
    new = new_key(tmp_path, "new_key")
    await filled(db, key, [team.workspace_id], 20)
    await filled(db, new, [team.workspace_id], 20)
    lines = await exported(db, team.workspace_id)
    assert judged(lines, key, new).is_good
    for one, sizes in ((key, (20, 27)), (new, (0, 7))):
        problem = judged(lines, one).problem
        assert problem
        assert problem.code == "checkpoint_unsigned"
        assert problem.between == sizes


async def test_no_secret_of_a_key_enters_the_log(db: Database, team: Team, database_url: str) -> None:
    async with db.system() as session:
        secret = await make_key(session, team.workspace_id, "probe", kind=Kind.AGENT)
    await act(db, team.workspace_id)
    with psycopg.connect(plain(database_url)) as connection:
        assert secret not in str(connection.execute("SELECT * FROM audit").fetchall())
