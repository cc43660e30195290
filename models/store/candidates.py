"""The changes a mission may try, in the order in which they came."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict
from models.domain.events import EventType
from models.domain.refusals import missing
from models.schemas.missions import MAX_CANDIDATES
from models.schemas.pagination import PageRequest
from models.store import blobs, lists, missions
from models.store.database import within
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import Candidate, Mission


@dataclass(frozen=True)
class NewCandidate:
    """A change to keep: a diff's bytes, or a ref of the repository."""

    author: str
    diff: bytes | None = None
    ref: str | None = None


async def of_mission(session: AsyncSession, workspace_id: str, mission_id: str) -> list[Candidate]:
    """Read a mission's candidates in the order in which they are tried."""
    statement = (
        select(Candidate)
        .where(Candidate.workspace_id == workspace_id, Candidate.mission_id == mission_id)
        .order_by(col(Candidate.number))
    )
    return list(await session.scalars(statement))


async def list_page(session: AsyncSession, workspace_id: str, mission_id: str, page: PageRequest) -> Rows[Candidate]:
    """Read one page of a mission's candidates."""
    keys = (col(Candidate.number),)
    return await lists.fetch(session, Candidate, workspace_id, {"mission_id": mission_id}, keys, page)


async def keep(
    session: AsyncSession, workspace_id: str, mission_id: str, new: Sequence[NewCandidate], added_by: str
) -> list[Candidate]:
    """Store candidates behind those a mission has; diffs are kept by their digest.

    Raises:
        Conflict: `mission_not_open`, or `too_many_candidates`.
    """
    first = await _next_number(session, workspace_id, mission_id)
    if first + len(new) > MAX_CANDIDATES:
        raise Conflict("too_many_candidates", f"a mission has at most {MAX_CANDIDATES} candidates")
    kept = []
    for number, candidate in enumerate(new, first):
        digest = await blobs.put(session, workspace_id, candidate.diff) if candidate.diff is not None else None
        row = Candidate(
            workspace_id=workspace_id,
            mission_id=mission_id,
            number=number,
            digest=digest,
            ref=candidate.ref,
            author=candidate.author,
            added_by=added_by,
        )
        kept.append(row)
    session.add_all(kept)
    await session.flush()
    return kept


async def add(session: AsyncSession, workspace_id: str, mission_id: str, new: NewCandidate, actor: Actor) -> Candidate:
    """Add one candidate to an open mission, and tell of it."""
    [candidate] = await keep(session, workspace_id, mission_id, [new], actor.name)
    data = {"number": candidate.number, "digest": candidate.digest, "ref": candidate.ref, "author": candidate.author}
    await missions.tell(session, workspace_id, mission_id, EventType.MISSION_CANDIDATE_ADDED, actor, data)
    return candidate


async def copy(session: AsyncSession, workspace_id: str, source: str, target: str) -> None:
    """Give a retried mission the candidates of the one before; how those fared is not copied."""
    session.add_all(
        Candidate(**known.model_dump(exclude={"mission_id", "outcome", "reason", "created_at"}), mission_id=target)
        for known in await of_mission(session, workspace_id, source)
    )
    await session.flush()


async def _next_number(session: AsyncSession, workspace_id: str, mission_id: str) -> int:
    """Lock the mission against its start and against other candidates, and count."""
    mission = await session.get(Mission, (workspace_id, mission_id), with_for_update=True)
    if mission is None:
        raise missing("mission", mission_id)
    if not missions.is_waiting(mission):
        raise Conflict("mission_not_open", "the mission was started; candidates are taken only before that")
    statement = select(func.count()).where(Candidate.workspace_id == workspace_id, Candidate.mission_id == mission_id)
    return (await session.execute(statement)).scalar_one()


async def record_outcomes(session: AsyncSession, workspace_id: str, mission_id: str) -> None:
    """Say of each candidate that was tried how it fared, and why one failed; the latest round counts."""
    await within(session)(_RECORD_OUTCOMES, {"workspace_id": workspace_id, "mission_id": mission_id})


_RECORD_OUTCOMES = """
    UPDATE candidate SET outcome = tried.status, reason = tried.reason
    FROM (
        SELECT DISTINCT ON (candidate) candidate, CASE status WHEN 'failed' THEN 'failed' ELSE 'passed' END AS status,
        CASE status WHEN 'failed' THEN stage || ': ' || reason END AS reason
        FROM stage WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND ended_at IS NOT NULL
        AND stage IN ('branch_and_patch', 'run_tests', 'security_scan', 'stress_tests')
        ORDER BY candidate, round DESC, position DESC
    ) AS tried
    WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND number = tried.candidate
    AND outcome IS DISTINCT FROM tried.status
"""
