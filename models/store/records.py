"""Reading the records that stages leave behind, and their logs, finished or still growing."""

import asyncio
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import NotFound
from models.domain.stages import StageName
from models.schemas.pagination import PageRequest
from models.store import blobs, lists
from models.store.database import Database
from models.store.pagination import Rows
from models.tables.missions import Mission, Stage

LOOK_SECONDS = 0.25
"""How often a growing log is looked at; its writer adds to it every 0.2 s."""
_OVERLAP = 64
_RESTARTED = b"\n[mission-control] the stage begins again\n"
_CUT = b"\n[mission-control] there is more than can be followed; the stored log has its end\n"


async def list_page(session: AsyncSession, mission: Mission, page: PageRequest) -> Rows[Stage]:
    """Read one page of a mission's records, in the order in which the stages began."""
    keys = (col(Stage.started_at), col(Stage.round), col(Stage.candidate), col(Stage.position))
    return await lists.fetch(session, Stage, mission.workspace_id, {"mission_id": mission.mission_id}, keys, page)


async def of_mission(session: AsyncSession, mission: Mission) -> list[Stage]:
    """Read all records of a mission, in the order in which the stages began."""
    statement = lists.matching(Stage, mission.workspace_id, {"mission_id": mission.mission_id})
    return list(await session.scalars(statement.order_by(col(Stage.started_at), col(Stage.position))))


async def require(
    session: AsyncSession, mission: Mission, name: StageName, round_: int | None = None, candidate: int | None = None
) -> Stage:
    """Read the record of one run of a stage, the latest unless `round_` or `candidate` say which; it must be there."""
    wanted = {"mission_id": mission.mission_id, "stage": name.value, "round": round_, "candidate": candidate}
    latest = lists.matching(Stage, mission.workspace_id, wanted).order_by(
        col(Stage.round).desc(), col(Stage.started_at).desc()
    )
    found = (await session.scalars(latest, execution_options={"populate_existing": True})).first()
    if found is None:
        raise NotFound("stage_not_found", f"{mission.mission_id} has no record of {name.value} there; it did not begin")
    return found


async def log(session: AsyncSession, stage: Stage) -> bytes:
    """Read what a stage's commands printed, as far as it is there."""
    if stage.log_digest is not None:
        return await blobs.get(session, stage.workspace_id, stage.log_digest) or b""
    return await blobs.printed(session, stage.workspace_id, stage.log_id) or b""


async def follow(db: Database, mission: Mission, stage: Stage, offset: int) -> AsyncIterator[bytes]:
    """Read a log while it grows, from byte `offset` on, until its stage ends: each second a piece, or an empty one.

    It holds nothing while it waits, be it for the log or for its reader.
    """
    seen, after, tail, log_id = 0, -1, b"", stage.log_id
    while True:
        async with db.workspace(mission.workspace_id) as session:
            stage = await require(session, mission, StageName(stage.stage), stage.round, stage.candidate)
            is_over = stage.ended_at is not None
            whole = await log(session, stage) if is_over else b""
            pieces = [] if is_over else await blobs.chunks(session, stage.workspace_id, stage.log_id or "", after)
        if is_over:
            yield _rest(whole, seen, tail)[max(0, offset - seen) :]
            return
        if stage.log_id != log_id:
            yield _RESTARTED
            seen, after, tail, log_id, offset = 0, -1, b"", stage.log_id, 0
            continue
        grown = b"".join(content for _, content in pieces)
        yield grown[max(0, offset - seen) :]
        seen, tail = seen + len(grown), (tail + grown)[-_OVERLAP:]
        after = pieces[-1][0] if pieces else after
        await asyncio.sleep(LOOK_SECONDS)


def _rest(whole: bytes, seen: int, tail: bytes) -> bytes:
    """What a follower has not seen of the stored log, which of a very long output keeps only beginning and end."""
    if whole[:seen].endswith(tail):
        return whole[seen:]
    last = whole.rfind(tail)
    return whole[last + len(tail) :] if last >= 0 else _CUT


async def diff_digest(session: AsyncSession, mission: Mission, round_: int | None, candidate: int | None) -> str | None:
    """Find the digest of the diff that a mission wants to merge, as git made it of the candidate."""
    try:
        stage = await require(session, mission, StageName.BRANCH_AND_PATCH, round_, candidate)
    except NotFound:
        return None
    digest = stage.result.get("diff")
    return str(digest) if digest else None


async def holds(session: AsyncSession, mission: Mission, digest: str) -> bool:
    """Whether a stage of the mission names this digest as its log or as its diff."""
    statement = select(Stage.stage).where(
        Stage.workspace_id == mission.workspace_id,
        Stage.mission_id == mission.mission_id,
        (col(Stage.log_digest) == digest) | (col(Stage.result)["diff"].astext == digest),
    )
    return (await session.scalars(statement.limit(1))).first() is not None
