"""For whom missions are: who may be meant at all, and what goes to others once its agent has ended."""

from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.roles import ALIASES
from models.store.database import mark_events, within
from models.store.events import Actor

AT_ONCE = 500
"""Missions that are given back in one transaction at most: well within the time that it has."""


ROLES = [*ALIASES, *ALIASES.values()]
"""Roles that there are without anybody who has them."""


async def is_somebody(session: AsyncSession, workspace_id: str, name: str) -> bool:
    """Whether a mission may be for whoever is so called: an agent that is or may be let in, a member, or a role."""
    values = {"workspace_id": workspace_id, "name": name, "roles": ROLES}
    [found] = await within(session)(_IS_SOMEBODY, values)
    return bool(found["known"])


async def give_back(session: AsyncSession, actor: Actor, workspace_id: str | None = None, agent: str = "") -> None:
    """Let others have the missions that an agent was given and did not start: one that ended, was stopped, is set
    apart, or has not been heard of for five minutes.

    Of one agent, or of all in all workspaces (system door): an agent may be given one at the moment in which it ends.
    A mission goes back to the agent that it was filed for, where that one still goes on. What was filed for an agent
    and not yet claimed waits for one that was stopped, and is offered to others once that one is deactivated, or was
    not let in.
    """
    values = {"workspace_id": workspace_id, "agent": agent, "limit": AT_ONCE, "roles": ROLES}
    who = {"actor": actor.name, "correlation_id": actor.correlation_id}
    if await within(session)(_GIVE_BACK, values | who):
        mark_events(session)


def _somebody(workspace: str, name: str) -> str:
    return f"""({name} = ANY(%(roles)s) OR EXISTS (
        SELECT FROM agent o WHERE o.workspace_id = {workspace} AND o.registration IN ('pending', 'approved')
        AND (o.name = {name} OR o.capabilities ? {name})
    ) OR EXISTS (SELECT FROM principal p WHERE p.workspace_id = {workspace} AND p.name = {name} AND p.kind = 'human'
        AND p.deactivated_at IS NULL))"""  # noqa: S608  # names of columns and parameters, no input


_IS_SOMEBODY = f"SELECT {_somebody('%(workspace_id)s', 'CAST(%(name)s AS text)')} AS known"

# A name that was not let in may be a role's, or have been let in later; what was filed since then means that one. What
# is filed while it is refused may be dated after it, by less than a transaction may take.
_REFUSED = "a.registration = 'rejected' AND m.created_at <= a.decided_at + interval '1 minute'"


def _is_gone(name: str) -> str:
    somebody = _somebody("m.workspace_id", name)
    return f"(a.registration = 'deactivated' OR a.status = 'stopped' OR ({_REFUSED} AND NOT {somebody}))"


_IS_AWAY = "(a.status = 'quarantined' OR a.silence = 'lost')"
_GIVE_BACK = f"""
    WITH held AS (
        SELECT m.workspace_id, m.mission_id FROM agent a
        JOIN mission m ON m.workspace_id = a.workspace_id AND m.assigned_to = a.name
        AND m.status = 'open' AND m.run_id IS NULL AND (m.claimed_at IS NOT NULL OR a.registration <> 'approved')
        WHERE ({_is_gone("m.assigned_to")} OR (m.claimed_at IS NOT NULL AND {_IS_AWAY}))
        AND (CAST(%(workspace_id)s AS text) IS NULL OR (a.workspace_id = %(workspace_id)s AND a.name = %(agent)s))
        ORDER BY m.created_at LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
    ), given AS (
        UPDATE mission m SET claimed_at = NULL, assigned_to = CASE WHEN EXISTS (
            SELECT FROM agent a WHERE a.workspace_id = m.workspace_id AND a.name = m.filed_for
            AND {_is_gone("m.filed_for")}
        ) THEN NULL ELSE m.filed_for END
        FROM held WHERE m.workspace_id = held.workspace_id AND m.mission_id = held.mission_id RETURNING m.*
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
    jsonb_build_object('assigned_to', assigned_to) FROM given RETURNING 1
"""  # noqa: S608  # as above
