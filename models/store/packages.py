"""Puts a mission's package together from what is stored about it: what clients see as the mission (MISS-02)."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, func, select

from models.contracts.missions import CryptoSignature, Evidence, PatchCandidate, RemediationEvent, WorkspaceInfo
from models.schemas import links
from models.schemas.missions import MissionView
from models.store import candidates, records
from models.tables.missions import EvidenceRow, MetricSample, Mission, RemediationRow, Stage, TestResultRow
from models.tables.workspaces import Repository

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


async def view(session: AsyncSession, mission: Mission) -> MissionView:
    """Gather a mission's package. Diffs and reports are named by digest, not shown."""
    parts: dict[str, Any] = {
        "workspace": await _workspace(session, mission),
        "remediation_history": await _history(session, mission),
        "crypto_signatures": [
            _signature(stage) for stage in await records.of_mission(session, mission) if stage.signature
        ],
        "evidence": await evidence(session, mission),
    }
    return MissionView.model_validate({name: getattr(mission, name) for name in _SAME} | parts)


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


async def _workspace(session: AsyncSession, mission: Mission) -> WorkspaceInfo:
    repository = await session.get_one(Repository, (mission.workspace_id, mission.repository_id))
    rows = await candidates.of_mission(session, mission.workspace_id, mission.mission_id)
    return WorkspaceInfo(
        repo_path=repository.url,
        working_branch=mission.branch,
        patch_candidates=tuple(
            PatchCandidate(id=str(row.number), ref=row.ref or row.digest, author=row.author) for row in rows
        ),
        dependencies=tuple(mission.dependencies),
    )


async def _history(session: AsyncSession, mission: Mission) -> list[RemediationEvent]:
    statement = select(RemediationRow).where(*_of(RemediationRow, mission)).order_by(col(RemediationRow.at))
    fields = RemediationEvent.model_fields
    return [
        RemediationEvent.model_validate({name: getattr(row, name) for name in fields})
        for row in await session.scalars(statement)
    ]


def _signature(stage: Stage) -> CryptoSignature:
    return CryptoSignature.model_validate(
        {
            "subject": f"stage/{stage.stage}/{stage.round}/{stage.candidate}",
            "digest": stage.digest,
            "signature": stage.signature,
            "key_id": stage.key_id,
            "at": stage.ended_at,
        }
    )
