"""The changes a mission may try."""

from typing import Annotated

from fastapi import Depends, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Assignee, Db, OnlyOnce, Pagination, Reader
from api.missions import ThisMission, read_candidate, require_access, require_assigned
from api.routing import router
from models.schemas import links
from models.schemas.envelope import Page, Success
from models.schemas.missions import CandidateCreate, CandidateView
from models.schemas.pagination import PageRequest
from models.store import candidates
from models.tables.missions import Candidate

routes = router("missions")
InOrder = Annotated[PageRequest, Depends(Pagination("number", default="number"))]


@routes.get("/missions/{mission_id}/candidates")
async def list_candidates(call: Reader, mission: ThisMission, db: Db, page: InOrder) -> Success[Page[CandidateView]]:
    """List a mission's candidates in the order in which they are tried, with how each fared."""
    async with db.workspace(call.workspace_id) as session:
        found = await candidates.list_page(session, call.workspace_id, mission.mission_id, page)
    return Success(data=Page(items=[_view(row) for row in found.rows], next_cursor=found.next_cursor))


@routes.post("/missions/{mission_id}/candidates", status_code=201, response_model=Success[CandidateView])
async def add_candidate(new: CandidateCreate, call: Assignee, mission: ThisMission, once: OnlyOnce, db: Db) -> Response:
    """Add a change to try: a unified diff of up to 16 MiB, or a ref of the repository. Only before the start."""
    require_assigned(mission, call)
    await require_access(mission, call, db)
    checked = await read_candidate(new, call)

    async def add(session: AsyncSession) -> CandidateView:
        return _view(await candidates.add(session, call.workspace_id, mission.mission_id, checked, call.actor))

    return await once.commit(add)


def _view(candidate: Candidate) -> CandidateView:
    view = CandidateView.model_validate(candidate)
    if candidate.digest:
        view.links["diff"] = links.blob(candidate.mission_id, candidate.digest)
    return view
