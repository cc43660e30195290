"""Every act over HTTP leaves a row of the audit log with the id of its request (AUD-01)."""

import pytest
from sqlalchemy import text

from models.store.database import Database
from tests.api.test_route_matrix import ROWS, Row, a_key, ours, repo, service_key
from tests.fixtures.api import Caller, Team

__all__ = ["ours", "repo", "service_key"]

NO_ACTS = {
    "POST /events": "a report of what was seen",
    "POST /metrics/observations": "samples",
    "POST /policy/try": "nothing is kept of it",
    "POST /policy/explain": "nothing is kept of it",
    "POST /agents/{agent}/heartbeat": "that it lives",
    "POST /runs/{run_id}/costs": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations/{cost_id}/settle": "the ledger keeps it (ADR 21)",
    "POST /runs/{run_id}/reservations/{cost_id}/release": "the ledger keeps it (ADR 21)",
}
UNCHANGED = {
    "PUT /workspaces/{workspace_id}/members/{name}": "the role is the one that they have",
    "DELETE /principals/{name}": "they were removed as a member just before",
}
KEPT = text("SELECT correlation_id FROM audit WHERE correlation_id = ANY(:ids)")
MOST = 0.6
"""The share of routes that do something here: others find that it is done already, or that nothing runs."""


def acts() -> list[Row]:
    """The routes that do something; whoever enters or leaves by a browser does so without the key."""
    changing = [row for row in ROWS if row.method != "GET" and row.path != "/auth/session"]
    return [row for row in changing if f"{row.method} {row.path}" not in NO_ACTS]


def test_no_exemption_is_stale() -> None:
    assert {f"{row.method} {row.path}" for row in ROWS} >= NO_ACTS.keys()


@pytest.mark.timeout(120)
async def test_each_that_succeeds(client: Caller, team: Team, ours: dict[str, str], db: Database) -> None:
    api = client(await a_key(db, team, "P"))
    wanted: dict[str, str] = {}
    for row in acts():
        answer = await api.request(row.method, f"/api/v1{row.path.format(**ours)}", json=row.body)
        if answer.is_success:
            wanted[answer.headers["x-request-id"]] = f"{row.method} {row.path}"
    assert len(wanted) > MOST * len(acts()), sorted(wanted.values())
    async with db.system() as session:  # what makes a workspace is kept in that one
        known = set((await session.execute(KEPT, {"ids": list(wanted)})).scalars())
    assert {name for request, name in wanted.items() if request not in known} == UNCHANGED.keys()
