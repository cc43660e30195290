"""How far agents are trusted (POL-13, POL-14)."""

from typing import Annotated

from fastapi import Depends

from api.deps import Db, Newest, Pagination, Reader
from api.routing import router
from api.views import page_of
from models.contracts.missions import Named
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.schemas.trust import TrustChangeView, TrustScore
from models.store import agents, trust

routes = router("agents")
Latest = Annotated[PageRequest, Depends(Pagination("at", default="-at"))]


@routes.get("/trust-scores")
async def list_trust_scores(call: Reader, db: Db, page: Newest) -> Success[Page[TrustScore]]:
    """List how far each agent is trusted: 0 not at all, 1 wholly; a new one 0.5."""
    async with db.workspace(call.workspace_id) as session:
        return page_of(TrustScore, await agents.list_page(session, call.workspace_id, {}, page))


@routes.get("/trust-scores/{agent}")
async def get_trust_score(agent: Named, call: Reader, db: Db) -> Success[TrustScore]:
    """Show how far one agent is trusted, by id or name."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=TrustScore.model_validate(await agents.require(session, call.workspace_id, agent)))


@routes.get("/trust-scores/{agent}/changes")
async def list_trust_changes(agent: Named, call: Reader, db: Db, page: Latest) -> Success[Page[TrustChangeView]]:
    """List which missions moved an agent's score, the newest first."""
    async with db.workspace(call.workspace_id) as session:
        known = await agents.require(session, call.workspace_id, agent)
        found = await trust.history(session, call.workspace_id, known.agent_id, page)
        return page_of(TrustChangeView, found)
