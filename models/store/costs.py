"""What was paid, summed up from the ledger: each grouping of the same rows comes to the same total."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from models.schemas.budgets import GroupBy
from models.store import agents
from models.store.database import within

_COLUMNS = {
    GroupBy.AGENT: "agent_id",
    GroupBy.TICKET: "ticket_id",
    GroupBy.RUN: "run_id",
    GroupBy.MISSION: "mission_id",
    GroupBy.MODEL: "model",
    GroupBy.DAY: "day",
    GroupBy.WORKSPACE: "workspace_id",
}
FILTERS = ("agent_id", "ticket_id", "run_id", "mission_id", "model")


async def sums(
    session: AsyncSession, workspace_id: str, by: GroupBy, filters: Mapping[str, str | None], limit: int, offset: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Sum up by a column: the groups of a page, the dearest first, and the total of all, with how many there are."""
    agent = await agents.name_of(session, workspace_id, filters.get("agent_id"))
    known = {"workspace_id": workspace_id, "limit": limit, "offset": offset}
    rows = await within(session)(_statement(_COLUMNS[by]), {**known, **filters, "agent_id": agent})
    return [row for row in rows if not row["is_total"]], next(row for row in rows if row["is_total"])


async def of_missions(session: AsyncSession, workspace_id: str, missions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sum up what missions have cost by now; those that cost nothing are left out.

    `own_usd` is for what hosts worked, which is settled when the mission ends.
    """
    rows = await within(session)(_OF_MISSIONS, {"workspace_id": workspace_id, "missions": list(missions)})
    return {row.pop("mission_id"): row for row in rows}


_OF_MISSIONS = """
    SELECT mission_id, COALESCE(sum(usd) FILTER (WHERE run_id <> mission_id), 0) AS usd,
    COALESCE(sum(usd) FILTER (WHERE run_id = mission_id), 0) AS own_usd,
    CAST(sum(tokens_in + tokens_out) AS bigint) AS tokens FROM ledger
    WHERE workspace_id = %(workspace_id)s AND mission_id = ANY(%(missions)s) AND kind IN ('settle', 'adjust')
    GROUP BY mission_id
"""


def _statement(column: str) -> str:
    where = " AND ".join(
        [
            *(f"(CAST(%({name})s AS text) IS NULL OR {name} = %({name})s)" for name in FILTERS),
            "(CAST(%(since)s AS text) IS NULL OR day >= %(since)s)",
            "(CAST(%(until)s AS text) IS NULL OR day < %(until)s)",
        ]
    )
    return f"""
        WITH sums AS (
            SELECT {column} AS key, GROUPING({column}) = 1 AS is_total, COALESCE(sum(usd), 0) AS usd,
            COALESCE(sum(usd) FILTER (WHERE unpriced), 0) AS unpriced_usd,
            COALESCE(sum(usd) FILTER (WHERE overrun AND kind = 'settle'), 0) AS overrun_usd,
            CAST(COALESCE(sum(tokens_in), 0) AS bigint) AS tokens_in,
            CAST(COALESCE(sum(tokens_out), 0) AS bigint) AS tokens_out,
            CAST(COALESCE(sum(tokens_in + tokens_out), 0) AS bigint) AS tokens,
            CAST(COALESCE(sum(calls), 0) AS bigint) AS calls
            FROM ledger WHERE workspace_id = %(workspace_id)s AND kind IN ('settle', 'adjust') AND {where}
            GROUP BY GROUPING SETS (({column}), ())
        ), page AS (
            SELECT * FROM sums WHERE NOT is_total ORDER BY usd DESC, key LIMIT %(limit)s OFFSET %(offset)s
        )
        SELECT *, (SELECT count(*) FROM sums WHERE NOT is_total) AS groups
        FROM (SELECT * FROM page UNION ALL SELECT * FROM sums WHERE is_total) shown ORDER BY is_total, usd DESC, key
    """  # noqa: S608  # names of our own columns
