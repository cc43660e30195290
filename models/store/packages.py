"""Puts a mission's package together from what is stored about it: what clients see as the mission (MISS-02)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, func, select

from models.contracts.missions import Evidence, RemediationEvent
from models.schemas import links
from models.schemas.missions import MissionView
from models.store import candidates, records
from models.store.database import within
from models.tables.missions import EvidenceRow, MetricSample, Mission, TestResultRow

_SAME = (
    "mission_id",
    "subsystem_id",
    "severity",
    "status",
    "context",
    "symptoms",
    "acceptance_criteria",
    "trust_requirements",
    "outcome",
    "reason",
    "mission_type",
    "repository_id",
    "detected_by",
    "assigned_to",
    "created_by",
    "stage",
    "paused",
    "blocked",
    "merge_sha",
    "revert_sha",
    "retry_of",
    "created_at",
    "started_at",
    "merged_at",
    "ended_at",
    "approval_timeout_minutes",
    "overrides",
)
_SIGNED = """'subject', concat('stage/', stage, '/', round, '/', candidate), 'digest', digest, 'signature', signature,
        'key_id', key_id, 'at', ended_at"""
_DONE = ", ".join(f"'{name}', {name}" for name in RemediationEvent.model_fields)


def _gathered(table: str, fields: str, order: str, more: str = "") -> str:
    """Collect what belongs to the mission `m` in a table, as one JSON array."""
    return f"""(
        SELECT COALESCE(jsonb_agg(jsonb_build_object({fields}) ORDER BY {order}), '[]') FROM {table} t
        WHERE t.workspace_id = m.workspace_id AND t.mission_id = m.mission_id {more}
    )"""  # noqa: S608  # constants of this module, no input


_PLACE = "SELECT url FROM repository r WHERE r.workspace_id = m.workspace_id AND r.repository_id = m.repository_id"
COLUMNS = f"""
    m.*, ({_PLACE}) AS repo_path,
    {_gathered("candidate", "'id', CAST(number AS text), 'ref', COALESCE(ref, digest), 'author', author", "number")}
    AS patch_candidates,
    {_gathered("remediation_event", _DONE, "at")} AS remediation_history,
    {_gathered("stage", _SIGNED, "started_at, position", "AND t.signature IS NOT NULL")} AS crypto_signatures,
    {_gathered("evidence", "'kind', kind, 'digest', digest, 'at', at, 'source', stage", "at, evidence_id")} AS evidence
"""
"""Of a mission `m` in psycopg's own form: all that its package shows."""
_READ = f"SELECT {COLUMNS} FROM mission m WHERE m.workspace_id = %(workspace_id)s AND m.mission_id = %(mission_id)s"  # noqa: S608  # as above


async def read(session: AsyncSession, workspace_id: str, mission_id: str) -> dict[str, Any]:
    """Read `COLUMNS` of a mission that must be there."""
    [row] = await within(session)(_READ, {"workspace_id": workspace_id, "mission_id": mission_id})
    return row


def shown(row: Mapping[str, Any]) -> MissionView:
    """Put a mission's package together from its `COLUMNS`. Diffs and reports are named by digest, not shown."""
    workspace = {name: row[name] for name in ("repo_path", "patch_candidates", "dependencies")}
    parts = {
        "workspace": workspace | {"working_branch": row["branch"]},
        "remediation_history": row["remediation_history"],
        "crypto_signatures": row["crypto_signatures"],
        "evidence": [one | {"uri": links.blob(row["mission_id"], one["digest"])} for one in row["evidence"]],
    }
    return MissionView.model_validate({name: row[name] for name in _SAME} | parts)


async def evidence(session: AsyncSession, mission: Mission) -> list[Evidence]:
    """Read the pointers to all stored evidence, in order of time."""
    statement = select(EvidenceRow).where(*_of(EvidenceRow, mission))
    rows = await session.scalars(statement.order_by(col(EvidenceRow.at), col(EvidenceRow.evidence_id)))
    return [
        Evidence.model_validate(
            {
                "kind": row.kind,
                "uri": links.blob(mission.mission_id, row.digest),
                "digest": row.digest,
                "at": row.at,
                "source": row.stage,
            }
        )
        for row in rows
    ]


async def test_results(
    session: AsyncSession, mission: Mission, limit: int, offset: int
) -> tuple[list[TestResultRow], int]:
    """Read some of a mission's test results, and how many there are."""
    scope = _of(TestResultRow, mission)
    table = TestResultRow
    order = (col(table.round), col(table.candidate), col(table.run), col(table.ordinal))
    rows = await session.scalars(select(table).where(*scope).order_by(*order).offset(offset).limit(limit))
    total = (await session.execute(select(func.count()).select_from(table).where(*scope))).scalar_one()
    return list(rows), total


async def samples(session: AsyncSession, mission: Mission, limit: int) -> list[MetricSample]:
    """Read the newest samples that were taken for a mission, or that its stages judged by."""
    statement = select(MetricSample).where(*_of(MetricSample, mission)).order_by(col(MetricSample.at).desc())
    return list(await session.scalars(statement.limit(limit)))


async def holds(session: AsyncSession, mission: Mission, digest: str) -> bool:
    """Whether a digest names something that belongs to the mission: evidence, a log, a diff."""
    statement = select(EvidenceRow.digest).where(*_of(EvidenceRow, mission), EvidenceRow.digest == digest)
    if (await session.scalars(statement.limit(1))).first() is not None:
        return True
    kept = await candidates.of_mission(session, mission.workspace_id, mission.mission_id)
    return digest in {candidate.digest for candidate in kept} or await records.holds(session, mission, digest)


def _of(table: Any, mission: Mission) -> tuple[Any, Any]:
    return table.workspace_id == mission.workspace_id, table.mission_id == mission.mission_id
