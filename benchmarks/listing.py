"""`GET /missions` in a workspace of a million: a page by cursor, against the bare query through the same stack."""

from datetime import datetime
from urllib.parse import quote

import psycopg
from psycopg import sql

from benchmarks.http import load, request
from benchmarks.measure import Comparison, Goal, Numbers, alternate
from benchmarks.servers import BareApi, admin_key, serving
from models.schemas.pagination import PageRequest, Sort
from models.store.connections import plain
from models.store.keys import DEFAULT_WORKSPACE

GOAL = Goal("answers_per_second", "higher", 0.5)
PAGE = 50
PLACES = 500
"""Pages that are read in turn, spread over the whole list."""

_FILL = """
INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank, status, outcome,
    paused, control_version, mission_type, branch, env, protected, created_by, correlation_id, created_at)
SELECT {workspace}, 'mission.' || n, 'r', 'search', 'high', 1, 'resolved', 'merged',
    false, 0, 'coding', 'main', 'dev', false, 'bench', 'bench', now() - n * interval '1 second'
FROM generate_series(1, {rows}) AS n
"""
_REPOSITORY = """
INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env, created_by)
VALUES ({workspace}, 'r', 'r', 'https://example.org/r.git', 'example.org/r', 'main', false, 'dev', 'bench')
"""


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    rows, seconds, rounds = (100_000, 2.0, 3) if quick else (1_000_000, 6.0, 5)
    async with serving("postgres", "temporal", "api") as stack, BareApi(stack.settings) as bare_api:
        assert stack.settings.database_url is not None
        places = fill(stack.settings.database_url.get_secret_value(), rows)
        key, order = admin_key(stack.settings), PageRequest(PAGE, Sort("created_at", descending=True))
        pages = [request("GET", f"/api/v1/missions?limit={PAGE}&cursor={order.cursor(place)}", key) for place in places]
        bare_pages = [
            request(
                "GET",
                f"/missions?workspace={DEFAULT_WORKSPACE}&limit={PAGE}"
                f"&created_at={quote(place[0].isoformat())}&seq={place[1]}",
            )
            for place in places
        ]

        async def ours() -> Numbers:
            return await load(stack.settings.api_port, pages, seconds, 200)

        async def bare() -> Numbers:
            return await load(bare_api.settings.api_port, bare_pages, seconds, 200)

        return [await alternate(f"GET /missions of {rows:,}", GOAL, ours, bare, rounds)]


def fill(url: str, rows: int) -> list[tuple[datetime, int]]:
    """File that many missions at once; returns places all over the list."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        for statement in (_REPOSITORY, _FILL):
            values = {"workspace": sql.Literal(DEFAULT_WORKSPACE), "rows": sql.Literal(rows)}
            connection.execute(sql.SQL(statement).format(**values))
        connection.execute("VACUUM ANALYZE mission")
        step = rows // PLACES
        found = connection.execute("SELECT created_at, seq FROM mission WHERE seq %% %s = 0", [step])
        return [(row[0], row[1]) for row in found]
