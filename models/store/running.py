"""What a mission's workflow changes in the mission's row: its state, its controls, its end."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.contracts.pipeline import Conclusion, ControlRecord, StageRef
from models.domain.canonical import canonical_json
from models.domain.events import EventType, Subject
from models.domain.stages import StageName
from models.domain.states import MISSION_TRANSITIONS, MissionOutcome, MissionStatus, Severity, sources
from models.domain.system_acts import require_may_set
from models.store import compute, events
from models.store.database import Database, mark_events, within
from models.store.events import Actor
from models.store.mission_statements import CLOSED, HOLD, LOAD, LOCK, MERGED, START
from models.store.stages import WORKER, begin, subject
from models.tables.missions import Capa, Mission, RemediationRow
from models.tables.workspaces import Repository

_CONTROL_EVENTS = {
    "pause": EventType.MISSION_PAUSED,
    "resume": EventType.MISSION_RESUMED,
    "note": EventType.MISSION_NOTED,
    "cancel": EventType.MISSION_CANCEL_REQUESTED,
}


async def load(session: AsyncSession, workspace_id: str, mission_id: str, *, for_update: bool = False) -> Mission:
    """Read a mission that must be there; `for_update` keeps others from changing it until the transaction ends."""
    [row] = await within(session)(LOCK if for_update else LOAD, _key(workspace_id, mission_id))
    return Mission(**row)


async def load_repository(session: AsyncSession, mission: Mission) -> Repository:
    """Read the repository a mission works on."""
    repository = await session.get(Repository, (mission.workspace_id, mission.repository_id))
    assert repository is not None  # noqa: S101  # a foreign key holds it
    return repository


async def start(
    db: Database, workspace_id: str, mission_id: str, run_id: str, usd_per_second: Decimal | None = None
) -> Mission:
    """Note that the workflow runs, and read the mission as it is now: one that may not be started stays as it was.

    What its hosts will work is reserved with it.

    Raises:
        Conflict: `mission_blocked`, a limit leaves it nothing.
        ComputeReserved: `budget_reserved`, what it needs is promised to others.
    """
    key, told = _key(workspace_id, mission_id), [(EventType.MISSION_STARTED, {"run_id": run_id})]
    begun = _move(key, MissionStatus.IN_PROGRESS, WORKER, told) | {"run_id": run_id}
    costs = compute.steps(key | {"run_id": run_id}, usd_per_second)
    _, [row], _, reserved = await db.together(workspace_id, (START, begun), (LOAD, key), *costs, has_events=True)
    mission = Mission(**row)
    if reserved and not reserved[0]["is_reserved"]:
        await _reserve(db, mission, usd_per_second)
    return mission


async def _reserve(db: Database, mission: Mission, usd_per_second: Decimal | None) -> None:
    async with db.workspace(mission.workspace_id) as session:
        actor = Actor(WORKER, mission.correlation_id)
        refusal = await compute.reserve(session, mission.workspace_id, mission.mission_id, usd_per_second, actor)
    if refusal is not None:
        raise refusal


async def fill_context(
    session: AsyncSession, workspace_id: str, mission_id: str, context: dict[str, Any], commands: dict[str, Any]
) -> None:
    """Keep the state of the world that the mission began with, and the commands that judge it."""
    await session.execute(
        update(Mission)
        .where(col(Mission.workspace_id) == workspace_id, col(Mission.mission_id) == mission_id)
        .values(context=context, commands=commands)
    )


async def record_merge(session: AsyncSession, ref: StageRef, merge_sha: str, attempt: int) -> None:
    """Note the merge and that the mission observes from now on, in stage 10; doing it again changes nothing."""
    data = {"merge_sha": merge_sha}
    told = [(EventType.MISSION_MERGED, data), (EventType.MISSION_OBSERVING, data)]
    values = _move(_key(ref.workspace_id, ref.mission_id), MissionStatus.OBSERVING, WORKER, told) | data
    if await within(session)(MERGED, values):
        await begin(session, ref.model_copy(update={"stage": StageName.OBSERVE}), attempt)


async def record_revert(session: AsyncSession, workspace_id: str, mission_id: str, revert_sha: str) -> None:
    """Note the commit that took the merge back; doing it again changes nothing."""
    statement = (
        update(Mission)
        .where(
            col(Mission.workspace_id) == workspace_id,
            col(Mission.mission_id) == mission_id,
            col(Mission.revert_sha).is_distinct_from(revert_sha),
        )
        .values(revert_sha=revert_sha)
        .returning(col(Mission.correlation_id))
    )
    correlation = (await session.execute(statement)).scalar_one_or_none()
    if correlation is not None:
        data = {"revert_sha": revert_sha}
        actor = Actor(WORKER, correlation)
        await _tell(session, workspace_id, mission_id, EventType.MISSION_ROLLED_BACK, actor, data)


async def record_control(session: AsyncSession, change: ControlRecord) -> None:
    """Write an operator's command once. Versions grow: the row shows what the latest command made of it."""
    await within(session)(HOLD, _key(change.workspace_id, change.mission_id))
    if not await _remember(session, change):
        return
    values: dict[str, Any] = {"control_version": change.version}
    if change.action in ("pause", "resume"):
        values["paused"] = true() if change.action == "pause" else col(Mission.blocked).is_not(None)
    await session.execute(
        update(Mission)
        .where(
            col(Mission.workspace_id) == change.workspace_id,
            col(Mission.mission_id) == change.mission_id,
            col(Mission.control_version) < change.version,
        )
        .values(**values)
    )
    actor = Actor(change.actor, change.correlation_id)
    kind = _CONTROL_EVENTS[change.action]
    await _tell(session, change.workspace_id, change.mission_id, kind, actor, {"detail": change.detail})


async def conclude(session: AsyncSession, end: Conclusion, closer: str) -> bool:
    """Close the mission: status, outcome, CAPA and event; False when it was closed before."""
    ref, resolved = end.ref, end.outcome is MissionOutcome.MERGED
    to = MissionStatus.RESOLVED if resolved else MissionStatus.ESCALATED
    require_may_set(closer, to)
    kind = EventType.MISSION_RESOLVED if resolved else EventType.MISSION_ESCALATED
    data = {
        "outcome": end.outcome.value,
        "reason": end.reason,
        "merge_sha": end.merge_sha,
        "revert_sha": end.revert_sha,
    }
    values = _move(_key(ref.workspace_id, ref.mission_id), to, closer, [(kind, data)])
    moved = await within(session)(CLOSED, values | {"outcome": end.outcome.value, "reason": end.reason or None})
    mark_events(session)
    if moved and end.capa:
        await open_capa(session, end, Actor(closer, moved[0]["correlation_id"]))
    return bool(moved)


async def open_capa(session: AsyncSession, end: Conclusion, actor: Actor) -> None:
    """Open the one CAPA of a run that did not end well (PIPE-17)."""
    ref = end.ref
    mission = await load(session, ref.workspace_id, ref.mission_id)
    stage = f" in {end.failed_stage.value}" if end.failed_stage else ""
    row = {
        "workspace_id": ref.workspace_id,
        "capa_id": f"capa.{ref.mission_id}",
        "mission_id": ref.mission_id,
        "cause_key": "pipeline",
        "title": f"{ref.mission_id} ended as {end.outcome.value}{stage}",
        "cause": end.reason,
        "corrective": f"The merge was taken back by {end.revert_sha}." if end.revert_sha else "",
        "preventive": "",
        "severity": Severity.CRITICAL.value if _should_have_gone(end) else mission.severity,
        "status": "open",
        "created_by": actor.name,
    }
    statement = insert(Capa).values(**row).on_conflict_do_nothing().returning(col(Capa.capa_id))
    if (await session.execute(statement)).first() is not None:
        about = Subject(kind="capa", id=row["capa_id"])
        await events.append(
            session, ref.workspace_id, EventType.CAPA_CREATED, about, actor, {"mission_id": ref.mission_id}
        )


def _should_have_gone(end: Conclusion) -> bool:
    """Whether a merge stays that nobody vouches for: it could not be taken back, or was not observed (V-13)."""
    ended_badly = end.outcome in (MissionOutcome.FAILED, MissionOutcome.TERMINATED)
    return ended_badly and bool(end.merge_sha) and not end.revert_sha


async def _remember(session: AsyncSession, change: ControlRecord) -> bool:
    """Enter a command in the mission's history; false when it is there."""
    row = {
        "workspace_id": change.workspace_id,
        "mission_id": change.mission_id,
        "entry_id": f"control/{change.key}",
        "actor": change.actor,
        "action": change.action,
        "result": change.detail,
    }
    statement = insert(RemediationRow).values(**row).on_conflict_do_nothing().returning(col(RemediationRow.entry_id))
    return (await session.execute(statement)).first() is not None


async def _tell(
    session: AsyncSession, workspace_id: str, mission_id: str, kind: EventType, actor: Actor, data: dict[str, Any]
) -> None:
    await events.append(session, workspace_id, kind, subject(mission_id), actor, data)


def _key(workspace_id: str, mission_id: str) -> dict[str, str]:
    return {"workspace_id": workspace_id, "mission_id": mission_id}


def _move(
    key: dict[str, str], to: MissionStatus, actor: str, told: Sequence[tuple[EventType, dict[str, Any]]]
) -> dict[str, Any]:
    """Give what each move takes: where it may come from, and what is told of it."""
    return {
        **key,
        "status": to.value,
        "sources": [state.value for state in sources(MISSION_TRANSITIONS, to)],
        "actor": actor,
        "types": [kind.value for kind, _ in told],
        "told": [canonical_json(data).decode() for _, data in told],
    }
