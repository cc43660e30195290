"""The inbox: questions put to humans, and their answers (APPR-01..05)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask

from api.blocks import Blocks, ToMissions, told
from api.deps import AgentOrOperator, Db, OnlyOnce, Pagination, Reader, Workflows
from api.gateway import Gateway
from api.routing import router
from models.contracts.missions import Named
from models.domain.canonical import digest_of
from models.domain.decisions import Terms, cost_so_far
from models.domain.errors import MissionControlError
from models.domain.policy import Risk
from models.domain.states import DecisionKind, DecisionStatus
from models.schemas import links
from models.schemas.decisions import AnswerView, CostSoFar, DecisionCounts, DecisionResolve, DecisionView
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.store import answers, budgets, costs, decisions, memory
from models.tables.missions import Decision

routes = router("decisions")
Newest = Annotated[PageRequest, Depends(Pagination(*decisions.SORTS, default="-requested_at"))]


@routes.get("/decisions")
async def list_decisions(
    call: Reader,
    db: Db,
    page: Newest,
    status: DecisionStatus | None = None,
    kind: DecisionKind | None = None,
    risk: Risk | None = None,
    mission_id: str | None = None,
    requester: Annotated[Named | None, Query(description="One of those who asked for it when it was put.")] = None,
) -> Success[Page[DecisionView]]:
    """List questions, the newest first, or by risk or expiry, what never expires last; `status=pending` is the inbox.

    An agent sees those about its missions, and those that it may answer.
    """
    filters = {"status": status, "kind": kind, "risk": risk, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        own = call.principal.own_agent
        found = await decisions.list_page(session, call.workspace_id, filters, page, own, requester)
        views = await _views(session, call.workspace_id, found.rows)
    return Success(data=Page(items=views, next_cursor=found.next_cursor))


@routes.get("/decisions/counts")
async def count_decisions(
    call: Reader, db: Db, status: DecisionStatus = DecisionStatus.PENDING
) -> Success[DecisionCounts]:
    """Count questions in a state, by kind and by risk."""
    async with db.workspace(call.workspace_id) as session:
        found = await decisions.counts(session, call.workspace_id, status, call.principal.own_agent)
    return Success(data=DecisionCounts.of(status, found))


@routes.get("/decisions/{decision_id}")
async def get_decision(decision_id: str, call: Reader, db: Db) -> Success[DecisionView]:
    """Show a question: what exactly is to be approved, why a human is asked, and what the answer binds."""
    async with db.workspace(call.workspace_id) as session:
        decision = await decisions.require(session, call.workspace_id, decision_id, call.principal.own_agent)
        return Success(data=await _with_answers(session, decision))


@routes.post("/decisions/{decision_id}/resolve", response_model=Success[DecisionView])
async def resolve_decision(
    decision_id: str,
    answer: DecisionResolve,
    call: AgentOrOperator,
    once: OnlyOnce,
    gateway: Workflows,
    missions: ToMissions,
) -> Response:
    """Approve or deny, with an explanation. The answer stands once this returns, also while Temporal is away.

    Where several people must approve, the decision stays pending until the last of them has.
    """
    answered: list[Decision] = []

    async def resolve(session: AsyncSession) -> DecisionView:
        if agent := call.principal.own_agent:
            await decisions.require(session, call.workspace_id, decision_id, agent)
        given = (answer.status, answer.explanation)
        answered.append(await answers.give(session, call.principal, decision_id, *given, call.request_id))
        return await _with_answers(session, answered[-1])

    response = await once.commit(resolve)
    return _heard(response, answered[-1], gateway, missions) if answered else response  # else it is the first one again


def _heard(response: Response, decision: Decision, gateway: Gateway, missions: Blocks) -> Response:
    """Let those hear of an answer, once it has left, who wait for it: a mission, or those whose limit is raised."""
    if decision.status != DecisionStatus.PENDING and decision.mission_id:
        response.background = BackgroundTask(_tell, gateway, decision)
    elif decision.status != DecisionStatus.PENDING and decision.kind == budgets.KIND:
        told(response, missions)
    return response


async def _tell(gateway: Gateway, decision: Decision) -> None:
    """Wake the waiting mission. Where that fails, the reconciler tells it later: the answer is in Postgres."""
    with suppress(MissionControlError):
        await gateway.decision_resolved(decisions.reference(decision))


async def _with_answers(session: AsyncSession, decision: Decision) -> DecisionView:
    [view] = await _views(session, decision.workspace_id, [decision])
    given = [AnswerView.model_validate(answer) for answer in await decisions.answers(session, decision)]
    return view.model_copy(update={"answers": tuple(given)})


async def _views(session: AsyncSession, workspace_id: str, found: Sequence[Decision]) -> list[DecisionView]:
    """Show decisions with who may answer them now, and what their missions have cost by now."""
    missions = [decision.mission_id for decision in found if decision.mission_id]
    spent = await costs.of_missions(session, workspace_id, missions) if missions else {}
    terms = await budgets.terms(session, workspace_id, found)
    return [_view(one, terms[one.decision_id], spent.get(one.mission_id or "", {})) for one in found]


def _view(decision: Decision, terms: Terms, spent: Mapping[str, Any]) -> DecisionView:
    mission_id = decision.mission_id or decision.question.get("mission_id")
    found = {
        "terms": terms,
        "digest": digest_of({"question": decision.question, "binding": decision.binding}),
        "cost_so_far": CostSoFar.model_validate(cost_so_far(decision.question, spent)),
        "mission_id": mission_id,
        "links": dict(_links(decision, mission_id)),
    }
    return DecisionView.model_validate(decision).model_copy(update=found)


def _links(decision: Decision, mission_id: str | None) -> Iterable[tuple[str, str]]:
    yield "self", links.decision(decision.decision_id)
    if decision.kind == DecisionKind.TOOL_ACTION:
        yield "tool_call", links.tool_call(decision.binding["run_id"], decision.binding["number"])
    if memory.is_about(decision):
        yield "memory", links.memory(decision.binding["memory_id"])
    if mission_id:
        yield "mission", links.mission(mission_id)
    if decision.mission_id:
        place = links.mission(decision.mission_id)
        yield "diff", f"{place}/diff?round={decision.round}&candidate={decision.candidate}"
