"""What an agent does next (MISS-22)."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.auth import Call, require_own_page
from api.deps import AppSettings, Asker, Db
from api.idempotency import envelope
from api.routing import router
from api.services import services
from api.views import view_of
from models.contracts.missions import Named
from models.domain.errors import NotPermitted
from models.domain.names import is_agent_id
from models.domain.principals import Kind
from models.domain.roles import roles_of
from models.schemas.envelope import Success
from models.schemas.missions import MissionView
from models.store import agents, queue
from models.store.database import Database

routes = router("queue")


@routes.get("/queue/next", response_model=Success[MissionView | None])
async def next_mission(
    request: Request,
    call: Asker,
    db: Db,
    settings: AppSettings,
    agent_id: Annotated[Named, Query(description="Whom the mission is assigned to: an agent, by name or id.")],
    agent_role: Annotated[Named, Query(description="Its role, as in `allowed_roles`; `coding` is short for one.")],
    peek: Annotated[bool, Query(description="Look without taking.")] = False,
) -> Response:
    """Assign the most severe, then oldest open mission that the agent may take; null when there is none.

    No two callers ever get the same mission. One whose dependencies are not resolved waits. Where it is because of the
    agent that nothing is offered, the refusal says so: its state, its budget, its score or its roles.
    """
    name = await _name(agent_id, call, db)
    wish = queue.Wish(name, roles_of(agent_role), settings.claims_per_agent)
    if peek:
        found = await queue.peek(db, call.workspace_id, wish)
    else:
        call.require_change("queue")
        require_own_page(request)
        found = await services(request).claims.ask(call.workspace_id, queue.Claim(wish, call.actor))
    if not found:
        await queue.require_fit(db, call.workspace_id, wish)
    return Response(envelope(view_of(found, settings) if found else None), media_type="application/json")


async def _name(agent_id: str, call: Call, db: Database) -> str:
    """Find whom the mission is for; an agent asks for itself."""
    name = agent_id
    if is_agent_id(agent_id):
        async with db.workspace(call.workspace_id) as session:
            name = (await agents.require(session, call.workspace_id, agent_id)).name
    if call.principal.kind is Kind.AGENT and call.principal.name != name:
        raise NotPermitted("not_your_queue", f"this key is {call.principal.name!r}'s; ask with that agent_id")
    return name
