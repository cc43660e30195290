"""What an agent may spend before its window has a counter is told by the same rule as afterwards; a claim is short."""

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from models.domain.budgets import OWNERS, Scope
from models.store.database import Database
from models.store.queue_statements import CLAIM, nearest
from tests.fixtures.api import Team


@pytest.mark.parametrize("scope", Scope)
async def test_the_cap_of_the_nearest_owner_comes_first(db: Database, team: Team, scope: Scope) -> None:
    order = nearest("owner", scope)
    statement = f"SELECT owner FROM unnest(CAST(%(owners)s AS text[])) AS l (owner) ORDER BY {order}"  # noqa: S608
    for known in (sorted(OWNERS[scope]), sorted(OWNERS[scope], reverse=True)):
        rows = await db.alone(team.workspace_id, statement, {"owners": [owner.value for owner in known]})
        assert [row["owner"] for row in rows] == list(OWNERS[scope])


def test_a_claim_is_short_enough_to_be_read_once() -> None:
    assert len(CLAIM) <= MAX_CACHED_STATEMENT_LENGTH
