"""What an agent does next (MISS-22)."""

from typing import Annotated

from fastapi import Query

from api.deps import AppSettings, Asker, Db
from api.routing import router
from api.views import mission_view
from models.contracts.missions import Named
from models.domain.errors import NotPermitted
from models.domain.names import is_agent_id
from models.domain.principals import Kind
from models.domain.roles import roles_of
from models.schemas.envelope import Success
from models.schemas.missions import MissionView
from models.store import agents, queue

routes = router("queue")


@routes.get("/queue/next")
async def next_mission(
    call: Asker,
    db: Db,
    settings: AppSettings,
    agent_id: Annotated[Named, Query(description="Whom the mission is assigned to: an agent, by name or id.")],
    agent_role: Annotated[Named, Query(description="Its role, as in `allowed_roles`; `coding` is short for one.")],
    peek: Annotated[bool, Query(description="Look without taking.")] = False,
) -> Success[MissionView | None]:
    """Assign the most severe, then oldest open mission that the agent may take; null when there is none.

    No two callers ever get the same mission. One whose dependencies are not resolved waits.
    """
    async with db.workspace(call.workspace_id) as session:
        name = (await agents.require(session, call.workspace_id, agent_id)).name if is_agent_id(agent_id) else agent_id
        if call.principal.kind is Kind.AGENT and call.principal.name != name:
            raise NotPermitted("not_your_queue", f"this key is {call.principal.name!r}'s; ask with that agent_id")
        roles = roles_of(agent_role)
        if peek:
            mission = await queue.peek_next(session, call.workspace_id, name, roles)
        else:
            mission = await queue.claim_next(session, call.workspace_id, name, roles, call.actor)
        return Success(data=await mission_view(session, mission, settings) if mission else None)
