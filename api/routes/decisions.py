"""The inbox: questions put to humans, and their answers (APPR-01..05)."""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask

from api.auth import Call
from api.deps import Db, OnlyOnce, Operator, Pagination, Reader, Workflows
from api.gateway import Gateway
from api.routing import router
from models.domain.errors import MissionControlError
from models.domain.principals import Kind
from models.domain.states import DecisionStatus
from models.schemas import links
from models.schemas.decisions import DecisionResolve, DecisionView
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.store import decisions
from models.tables.missions import Decision

routes = router("decisions")
Newest = Annotated[PageRequest, Depends(Pagination("requested_at", default="-requested_at"))]


@routes.get("/decisions")
async def list_decisions(
    call: Reader,
    db: Db,
    page: Newest,
    status: DecisionStatus | None = None,
    kind: str | None = None,
    mission_id: str | None = None,
) -> Success[Page[DecisionView]]:
    """List questions, the newest first; `status=pending` is the inbox. An agent sees those about its missions."""
    filters = {"status": status, "kind": kind, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        found = await decisions.list_page(session, call.workspace_id, filters, page, _agent(call))
    return Success(data=Page(items=[_view(row) for row in found.rows], next_cursor=found.next_cursor))


@routes.get("/decisions/{decision_id}")
async def get_decision(decision_id: str, call: Reader, db: Db) -> Success[DecisionView]:
    """Show a question: what exactly is to be approved, why a human is asked, and what the answer binds."""
    async with db.workspace(call.workspace_id) as session:
        decision = await decisions.require(session, call.workspace_id, decision_id, _agent(call))
    return Success(data=_view(decision))


@routes.post("/decisions/{decision_id}/resolve", response_model=Success[DecisionView])
async def resolve_decision(
    decision_id: str, answer: DecisionResolve, call: Operator, once: OnlyOnce, gateway: Workflows
) -> Response:
    """Approve or deny, with an explanation. The answer stands once this returns, also while Temporal is away."""
    resolved: list[Decision] = []

    async def resolve(session: AsyncSession) -> DecisionView:
        explanation = answer.explanation
        decision = await decisions.resolve(
            session, call.workspace_id, decision_id, answer.status, explanation, call.actor
        )
        resolved.append(decision)
        return _view(decision)

    response = await once.commit(resolve)
    if resolved and resolved[0].mission_id:
        response.background = BackgroundTask(_tell, gateway, resolved[0])
    return response


async def _tell(gateway: Gateway, decision: Decision) -> None:
    """Wake the waiting mission. Where that fails, the reconciler tells it later: the answer is in Postgres."""
    with suppress(MissionControlError):
        await gateway.decision_resolved(decisions.reference(decision))


def _agent(call: Call) -> str | None:
    return call.principal.name if call.principal.kind is Kind.AGENT else None


def _view(decision: Decision) -> DecisionView:
    view = DecisionView.model_validate(decision)
    view.links["self"] = links.decision(decision.decision_id)
    if decision.mission_id:
        view.links["mission"] = links.mission(decision.mission_id)
        view.links["diff"] = (
            f"{links.mission(decision.mission_id)}/diff?round={decision.round}&candidate={decision.candidate}"
        )
    return view
