"""Missions as people and agents see them: filed, found, listed, filed again. Their workflow moves them (`running`)."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, insert, select

from models.domain import ids
from models.domain.agents import MAX_OPEN_MISSIONS
from models.domain.errors import Conflict, IllegalTransition, NotFound
from models.domain.events import EventType, Subject
from models.domain.names import is_agent_id
from models.domain.refusals import missing, mission_ended
from models.domain.states import MissionOutcome, MissionStatus
from models.schemas.missions import MissionCreate, MissionSummary
from models.schemas.pagination import PageRequest
from models.store import agents, claims, events, lists, pagination, repositories
from models.store.asking_statements import filers_of, starters_of
from models.store.database import Database, within
from models.store.events import Actor
from models.store.ledger_statements import DAY
from models.store.pagination import Rows
from models.tables.missions import Mission, RemediationRow
from models.tables.workspaces import Repository

SORTS: Mapping[str, tuple[Any, ...]] = {
    "created_at": (col(Mission.created_at), col(Mission.seq)),
    "severity": (col(Mission.severity_rank), col(Mission.created_at), col(Mission.seq)),
}
"""Orders of the list, each served by an index. By severity, the most urgent and then the oldest come first."""

_SUMMARY = tuple(MissionSummary.model_fields)
_COPIED = (
    "subsystem_id",
    "severity",
    "severity_rank",
    "mission_type",
    "branch",
    "chosen_branch",
    "symptoms",
    "acceptance_criteria",
    "dependencies",
    "trust_requirements",
    "overrides",
    "approval_timeout_minutes",
    "detected_by",
    "assigned_to",
)


async def find(session: AsyncSession, workspace_id: str, mission_id: str) -> Mission | None:
    """Read a mission."""
    return await session.get(Mission, (workspace_id, mission_id))


async def require(session: AsyncSession, workspace_id: str, mission_id: str) -> Mission:
    """Read a mission that must be there."""
    mission = await find(session, workspace_id, mission_id)
    if mission is None:
        raise missing("mission", mission_id)
    return mission


async def create(
    session: AsyncSession,
    workspace_id: str,
    new: MissionCreate,
    repository: Repository,
    actor: Actor,
    *,
    may_choose_branch: bool = False,
) -> Mission:
    """File a mission. It has the repository's protection and environment, and its branch unless it names one.

    Another branch than the repository's is protected, too, unless whoever files the mission `may_choose_branch`.

    Raises:
        NotFound: `mission_not_found`, of a dependency; `agent_not_found`, nobody is called what it is filed for.
    """
    await require_all(session, workspace_id, set(new.dependencies))
    trust = new.trust_requirements.model_dump(mode="json")
    trust["requires_governance_approval"] |= new.requires_governance_approval
    branch = new.workspace_branch or repository.target_branch
    values = {
        "repository_id": repository.repository_id,
        "subsystem_id": new.subsystem_id,
        "severity": new.severity.value,
        "severity_rank": new.severity.rank,
        "mission_type": new.mission_type,
        "branch": branch,
        "chosen_branch": branch != repository.target_branch and not may_choose_branch,
        "symptoms": [symptom.model_dump(mode="json") for symptom in new.symptoms],
        "acceptance_criteria": new.acceptance_criteria.model_dump(mode="json"),
        "dependencies": list(new.dependencies),
        "trust_requirements": trust,
        "overrides": new.overrides.model_dump(mode="json", exclude_none=True),
        "approval_timeout_minutes": new.approval_timeout_minutes,
        "detected_by": new.detected_by,
        "assigned_to": new.assigned_to and await _whom(session, workspace_id, new.assigned_to),
    }
    return await _insert(session, workspace_id, values, repository, actor)


async def require_room(session: AsyncSession, workspace_id: str, agent: str) -> None:
    """Bound what an agent has filed and is still open: people's missions wait behind the more severe ones.

    Raises:
        Conflict: `too_many_missions`.
    """
    open_ones = select(Mission.mission_id).where(
        Mission.workspace_id == workspace_id, Mission.created_by == agent, col(Mission.ended_at).is_(None)
    )
    if len((await session.scalars(open_ones.limit(MAX_OPEN_MISSIONS))).all()) >= MAX_OPEN_MISSIONS:
        told = f"{agent!r} has filed {MAX_OPEN_MISSIONS} missions that have not ended: wait, or have some canceled"
        raise Conflict("too_many_missions", told)


async def retry(session: AsyncSession, workspace_id: str, mission_id: str, actor: Actor) -> Mission:
    """File an ended mission again, as a new one of the same package; raises `Conflict` while it has not ended."""
    ended = await require(session, workspace_id, mission_id)
    if ended.outcome is None:
        raise Conflict("mission_not_ended", f"the mission is {ended.status}; only one that has ended can be retried")
    repository = await repositories.governing(session, workspace_id, ended.repository_id)
    same = {name: getattr(ended, name) for name in _COPIED}
    values = same | {"repository_id": repository.repository_id, "retry_of": mission_id}
    whom = ended.filed_for  # whom the queue gave it to is not whom it was filed for; who is gone leaves it to all
    values["assigned_to"] = whom if whom and await claims.is_somebody(session, workspace_id, whom) else None
    return await _insert(session, workspace_id, values, repository, actor)


async def filers(session: AsyncSession, mission: Mission) -> list[str]:
    """Name who filed a mission, and those that it files again: who retries it asks for what they asked for."""
    if mission.retry_of is None:
        return [mission.created_by]
    key = {"workspace_id": mission.workspace_id, "mission_id": mission.mission_id}
    return [row["created_by"] for row in await within(session)(_FILERS, key)]


async def starters(session: AsyncSession, mission: Mission) -> list[str]:
    """Name who had a mission started."""
    key = {"workspace_id": mission.workspace_id, "mission_id": mission.mission_id}
    return [row["created_by"] for row in await within(session)(_STARTERS, key)]


_FILERS, _STARTERS = filers_of("%(mission_id)s"), starters_of("%(mission_id)s")


async def list_page(
    db: Database, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[dict[str, Any]]:
    """Read one page of the summaries of missions whose columns have the wanted values; agents by name or id."""
    if is_agent_id(str(filters.get("assigned_to"))):
        async with db.workspace(workspace_id) as session:
            name = await agents.name_of(session, workspace_id, filters.get("assigned_to"))
        filters = {**filters, "assigned_to": name}
    scope = lists.wanted(workspace_id, filters)
    return await pagination.fetch_columns(db, Mission, _SUMMARY, scope, SORTS[page.sort.field], page)


def is_waiting(mission: Mission) -> bool:
    """Whether nobody started the mission yet."""
    return mission.status == MissionStatus.OPEN.value and mission.run_id is None


async def require_ready(session: AsyncSession, mission: Mission) -> None:
    """Check that a mission may be started.

    Raises:
        Conflict: `already_running`, `no_candidate`, or `dependencies_unresolved` with their ids.
        IllegalTransition: it has ended.
    """
    if mission.outcome is not None:
        raise IllegalTransition("illegal_transition", f"the mission ended as {mission.outcome}; retry files it again")
    if not is_waiting(mission):
        raise Conflict("already_running", "the mission is running already")
    key = {"workspace_id": mission.workspace_id, "mission_id": mission.mission_id}
    waiting = list((await session.execute(_UNRESOLVED, key)).scalars())
    if waiting:
        raise Conflict(
            "dependencies_unresolved", f"these missions must be resolved first: {', '.join(waiting)}", missions=waiting
        )
    if not (await session.execute(_HAS_CANDIDATE, key)).scalar_one():
        add = f"`mission-control mission candidate add {mission.mission_id}`, or POST …/candidates"
        raise Conflict("no_candidate", f"there is nothing to try: add a diff or a ref first ({add})")


_UNRESOLVED = text(
    "SELECT d.id FROM mission m, jsonb_array_elements_text(m.dependencies) AS d(id)"
    " LEFT JOIN mission needed ON needed.workspace_id = :workspace_id AND needed.mission_id = d.id"
    " WHERE m.workspace_id = :workspace_id AND m.mission_id = :mission_id"
    " AND needed.status IS DISTINCT FROM 'resolved' ORDER BY d.id"
)
_HAS_CANDIDATE = text(
    "SELECT EXISTS (SELECT FROM candidate WHERE workspace_id = :workspace_id AND mission_id = :mission_id)"
)


async def note_execute(session: AsyncSession, mission: Mission, actor: Actor) -> None:
    """Tell who wants the mission started; that it has started is told by its first stage.

    Whom the mission is for has taken it by that.
    """
    if mission.assigned_to == actor.name:
        key = {"workspace_id": mission.workspace_id, "mission_id": mission.mission_id, "name": actor.name}
        await within(session)(_TAKE, key)
    kind = EventType.MISSION_EXECUTE_REQUESTED
    await tell(session, mission.workspace_id, mission.mission_id, kind, actor, {})


_TAKE = """
    UPDATE mission SET claimed_at = mc_now() WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s
    AND claimed_at IS NULL AND assigned_to = %(name)s
"""


async def note_start(session: AsyncSession, workspace_id: str, mission_id: str, run_id: str) -> None:
    """Remember the run that was started, so that a second start is refused before the first stage is recorded.

    Raises:
        Conflict: `mission_ended`, by somebody who canceled it just before: the run will find so, too.
    """
    noted = await session.execute(
        update(Mission)
        .where(
            col(Mission.workspace_id) == workspace_id,
            col(Mission.mission_id) == mission_id,
            col(Mission.run_id).is_(None),
        )
        .values(run_id=run_id)
        .returning(col(Mission.started_at).is_(None) & col(Mission.ended_at).is_not(None))
    )
    if noted.scalar_one_or_none():
        raise mission_ended()


async def cancel_open(session: AsyncSession, workspace_id: str, mission_id: str, reason: str, actor: Actor) -> None:
    """End a mission that nobody started; raises `Conflict` when somebody did at this moment."""
    outcome = MissionOutcome.CANCELED.value
    said = reason or f"canceled by {actor.name}"
    statement = (
        update(Mission)
        .where(
            col(Mission.workspace_id) == workspace_id,
            col(Mission.mission_id) == mission_id,
            col(Mission.status) == MissionStatus.OPEN.value,
            col(Mission.run_id).is_(None),
        )
        .values(status=MissionStatus.ESCALATED.value, outcome=outcome, reason=said, ended_at=func.mc_now())
        .returning(col(Mission.mission_id))
    )
    if (await session.execute(statement)).scalar_one_or_none() is None:
        raise Conflict("already_running", "the mission was started at this moment; cancel it again")
    scope = {"workspace_id": workspace_id, "mission_id": mission_id}
    entry = {**scope, "entry_id": "cancel", "actor": actor.name, "action": "cancel", "result": said}
    await session.execute(insert(RemediationRow).values(**entry))
    data = {"outcome": outcome, "reason": said}
    await tell(session, workspace_id, mission_id, EventType.MISSION_ESCALATED, actor, data)


async def tell(
    session: AsyncSession, workspace_id: str, mission_id: str, kind: EventType, actor: Actor, data: dict[str, Any]
) -> None:
    """Write an event about a mission."""
    await events.append(session, workspace_id, kind, Subject(kind="mission", id=mission_id), actor, data)


async def _whom(session: AsyncSession, workspace_id: str, said: str) -> str:
    """Find for whom a mission is filed; an agent may be said by its id."""
    name = await agents.name_of(session, workspace_id, said)
    if not await claims.is_somebody(session, workspace_id, name):
        hint = "`GET /agents` lists agents: register it first, or leave `assigned_to` out, and any agent may take it"
        raise NotFound("agent_not_found", f"there is no agent, member or role {said!r} that could take it; {hint}")
    return name


async def _insert(
    session: AsyncSession, workspace_id: str, values: dict[str, Any], repository: Repository, actor: Actor
) -> Mission:
    rules = await repositories.rules_of(session, repository)
    day, number = await _next_number(session, workspace_id)
    own = rules | {
        "workspace_id": workspace_id,
        "mission_id": ids.mission_id(day, number),
        "status": MissionStatus.OPEN.value,
        "paused": False,
        "control_version": 0,
        "protected": rules["protected"] or values["chosen_branch"],
        "created_by": actor.name,
        "correlation_id": actor.correlation_id,
        "filed_for": values["assigned_to"],
    }
    mission = (await session.scalars(insert(Mission).values(**values, **own).returning(Mission))).one()
    told = {name: values.get(name) for name in ("severity", "subsystem_id", "repository_id", "assigned_to", "retry_of")}
    await tell(session, workspace_id, mission.mission_id, EventType.MISSION_CREATED, actor, told)
    return mission


async def _next_number(session: AsyncSession, workspace_id: str) -> tuple[date, int]:
    """Take the next number of the workspace's UTC day; the counter's row makes concurrent callers queue."""
    row = (await session.execute(_COUNT, {"workspace_id": workspace_id})).one()
    return row.day, row.last


_COUNT = text(f"""
    INSERT INTO mission_counter (workspace_id, day, last) VALUES (:workspace_id, {DAY}, 1)
    ON CONFLICT (workspace_id, day) DO UPDATE SET last = mission_counter.last + 1
    RETURNING CAST(day AS date) AS day, last
""")  # noqa: S608  # a constant, no input


async def require_all(session: AsyncSession, workspace_id: str, wanted: set[str]) -> None:
    """Refuse names of missions that the workspace does not have."""
    if not wanted:
        return
    statement = select(Mission.mission_id).where(
        Mission.workspace_id == workspace_id, col(Mission.mission_id).in_(wanted)
    )
    if unknown := wanted - set(await session.scalars(statement)):
        raise missing("mission", min(unknown))
