"""Agents: registered, let in, heard of, held, and deactivated (AGENT-01..11)."""

from datetime import timedelta

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.blocks import ToMissions, told
from api.deps import (
    Admin,
    AgentOrAdmin,
    Db,
    LivingAgent,
    Newest,
    OnAccess,
    Operator,
    Policies,
    Reader,
    ReaderOrRegistrant,
    Registrar,
)
from api.heartbeats import Beat
from api.idempotency import KeyHeader, once_in
from api.routing import router
from api.services import services
from api.views import agent_view, agent_views, key_made
from models.contracts.missions import Named
from models.domain.agents import AgentStatus, Registration, Verb, require_may_change
from models.domain.errors import NotFound
from models.domain.names import STRANGERS
from models.domain.principals import Kind
from models.domain.refusals import no_workspace
from models.domain.states import DecisionStatus
from models.schemas.agents import (
    CAPS,
    AgentChange,
    AgentDecide,
    AgentRegister,
    AgentRegistered,
    AgentShown,
    AgentView,
    HeartbeatView,
)
from models.schemas.envelope import Page, Success
from models.schemas.keys import KeyMade, KeyRotate
from models.store import agents, answers, caps, registrations, workspaces
from models.store.events import Actor
from models.store.idempotency import OF_STRANGERS
from models.tables.agents import AgentRow

routes = router("agents")
SECRET = "secret"  # noqa: S105  # the name of a field


@routes.post("/agents", status_code=201, response_model=Success[AgentRegistered])
async def register_agent(
    request: Request, new: AgentRegister, call: Registrar, book: Policies, key: KeyHeader = None
) -> Response:
    """Ask to be let in, with or without a key. The token in this answer gets the key, once an admin has approved."""
    if call is None:
        services(request).limiter.count_registration(request)
    elif new.workspace is not None and new.workspace != call.workspace_id:
        raise no_workspace(new.workspace)
    workspace_id = call.workspace_id if call else await _meant(request, new.workspace)
    actor = call.actor if call else Actor(f"{STRANGERS}{new.name}", request.state.request_id)
    if key and not call:
        key = f"{OF_STRANGERS}{key}"

    async def register(session: AsyncSession) -> AgentRegistered:
        resolvers = (await book.in_force(session, workspace_id)).policy.resolvers(registrations.KIND)
        agent, token = await registrations.register(session, workspace_id, new, resolvers, actor)
        return AgentRegistered(**(await agent_view(session, agent)).model_dump(), registration_token=token)

    return await once_in(request, workspace_id, key).commit(register, shown_once="registration_token")


@routes.get("/agents")
async def list_agents(
    call: Reader, db: Db, page: Newest, registration: Registration | None = None, status: AgentStatus | None = None
) -> Success[Page[AgentView]]:
    """List the workspace's agents, the newest first; those that were rejected or deactivated, too."""
    filters = {"registration": registration, "status": status}
    async with db.workspace(call.workspace_id) as session:
        found = await agents.list_page(session, call.workspace_id, filters, page)
        items = await agent_views(session, call.workspace_id, found.rows)
    return Success(data=Page(items=items, next_cursor=found.next_cursor))


@routes.get("/agents/{agent}")
async def get_agent(agent: Named, call: ReaderOrRegistrant, db: Db) -> Success[AgentShown]:
    """Show an agent, by id or name. Who registered it gets its key here, the first time after the approval."""
    async with db.workspace(call.workspace_id) as session:
        found = await agents.require(session, call.workspace_id, agent)
        if call.agent_id not in (None, found.agent_id):
            raise NotFound("agent_not_found", f"this token is not that of {agent!r}")
        key = await registrations.fetch_key(session, found, call.actor) if call.agent_id else None
        view = await agent_view(session, found)
    return Success(data=AgentShown(**view.model_dump(), key=key))


@routes.patch("/agents/{agent}", response_model=Success[AgentView])
async def change_agent(
    agent: Named, change: AgentChange, call: AgentOrAdmin, once: OnAccess, missions: ToMissions
) -> Response:
    """Change an agent's endpoint or capabilities; its level, its tools and its caps are for admins.

    The agent itself may give up capabilities; those beyond what an admin approved, an admin adds (`admins_only`).
    """

    async def apply(session: AsyncSession) -> AgentView:
        known = await _own(session, call, agent, for_update=True)
        own, values = change.caps, change.model_dump(exclude_none=True, exclude=set(CAPS.values()), mode="json")
        said = [*values, *(CAPS[scope] for scope in own)]
        by_admin = call.principal.is_admin
        require_may_change(known.capabilities, said, change.capabilities or (), by_admin=by_admin)
        changed = await agents.change(session, known, values, call.actor) if values else known
        if change.level or own:
            await caps.change_agent(session, changed, change.level, own, call.actor)
        return await agent_view(session, changed)

    return told(await once.commit(apply), missions)


@routes.delete("/agents/{agent}", response_model=Success[AgentView])
async def deactivate_agent(agent: Named, call: Admin, once: OnAccess) -> Response:
    """End an agent and all its keys now; it stays listed, with all that it did."""

    async def deactivate(session: AsyncSession) -> AgentView:
        ended = await registrations.deactivate(session, call.workspace_id, agent, call.principal, call.actor)
        return await agent_view(session, ended)

    return await once.commit(deactivate)


@routes.post("/agents/{agent}/approve", response_model=Success[AgentView])
async def approve_agent(agent: Named, body: AgentDecide, call: Admin, once: OnAccess) -> Response:
    """Let an agent in: the answer to the decision that its registration put into the inbox."""
    return await _decide(agent, DecisionStatus.APPROVED, body, call, once)


@routes.post("/agents/{agent}/reject", response_model=Success[AgentView])
async def reject_agent(agent: Named, body: AgentDecide, call: Admin, once: OnAccess) -> Response:
    """Keep an agent out; it may register again."""
    return await _decide(agent, DecisionStatus.DENIED, body, call, once)


@routes.post("/agents/{agent}/rotate-key", status_code=201, response_model=Success[KeyMade])
async def rotate_agent_key(agent: Named, body: KeyRotate, call: AgentOrAdmin, once: OnAccess) -> Response:
    """Give an agent a new key; the old one opens for the grace period yet. The agent itself may, and an admin."""

    async def rotate(session: AsyncSession) -> KeyMade:
        known = await _own(session, call, agent)
        own = call.principal.key_id if call.principal.kind is Kind.AGENT else None
        grace = timedelta(hours=body.grace_hours)
        key, secret = await registrations.renew_key(session, known, own, grace, call.principal, call.actor)
        return await key_made(session, key, secret)

    return await once.commit(rotate, shown_once=SECRET)


@routes.post("/agents/{agent}/heartbeat")
async def heartbeat(agent: Named, call: LivingAgent, request: Request) -> Success[HeartbeatView]:
    """Say that the agent lives, more often than every 90 seconds; the answer says what it is to be."""
    beat = Beat(call.principal, agent, call.actor)
    return Success(data=HeartbeatView(status=await services(request).heartbeats.hear(beat)))


@routes.post("/agents/{agent}/{verb}", response_model=Success[AgentView])
async def command_agent(agent: Named, verb: Verb, call: Operator, once: OnAccess) -> Response:
    """Pause, resume, drain, quarantine or stop an agent. Out of quarantine, or started again, it is by admins only."""

    async def obey(session: AsyncSession) -> AgentView:
        by_admin = call.principal.is_admin
        obeyed = await agents.command(session, call.workspace_id, agent, verb, call.actor, by_admin=by_admin)
        return await agent_view(session, obeyed)

    return await once.commit(obey)


async def _decide(agent: str, answer: DecisionStatus, body: AgentDecide, call: Call, once: OnAccess) -> Response:
    async def decide(session: AsyncSession) -> AgentView:
        asked = await registrations.question(session, call.workspace_id, agent, answer)
        await answers.give(session, call.principal, asked, answer, body.explanation, call.request_id)
        return await agent_view(session, await agents.require(session, call.workspace_id, agent))

    return await once.commit(decide)


async def _own(session: AsyncSession, call: Call, agent: str, *, for_update: bool = False) -> AgentRow:
    """Find the agent; to another agent it is not there to be changed."""
    known = await agents.require(session, call.workspace_id, agent, for_update=for_update)
    call.principal.require_own_agent(known.name)
    return known


async def _meant(request: Request, workspace_id: str | None) -> str:
    """Find the workspace that a stranger means."""
    async with services(request).db.system() as session:
        wanted = workspace_id or await workspaces.default(session)
        return (await workspaces.require(session, wanted)).workspace_id
