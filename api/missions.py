"""What the routes of one mission share: finding it, who may act for it, and its start."""

import asyncio
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import Db
from api.gateway import Gateway
from models.contracts.pipeline import PipelineInput
from models.domain.actions import START
from models.domain.errors import NotPermitted
from models.domain.patches import inspect_patch
from models.domain.policy import Act, Context, Outcome, Verdict
from models.domain.principals import Kind
from models.domain.states import Severity
from models.schemas.missions import CandidateCreate
from models.store import agents, missions, queue, trust
from models.store.candidates import NewCandidate
from models.store.database import Database
from models.store.policies import PolicyBook
from models.tables.missions import Mission


async def _this_mission(mission_id: str, request: Request, db: Db) -> Mission:
    call: Call = request.state.call
    async with db.workspace(call.workspace_id) as session:
        return await missions.require(session, call.workspace_id, mission_id)


ThisMission = Annotated[Mission, Depends(_this_mission)]
"""The mission in the path, as it was when the request came; 404 when the caller's workspace has none of that id."""


def require_assigned(mission: Mission, call: Call) -> None:
    """Let an agent act only for a mission that is assigned to it; operators may act for all."""
    if call.principal.kind is Kind.AGENT and mission.assigned_to != call.principal.name:
        raise NotPermitted("not_assigned", "this mission is not assigned to you; `GET /queue/next` assigns one")


async def require_own(session: AsyncSession, mission_id: str, call: Call) -> None:
    """Let an agent name only a mission that is assigned to it; raises `NotFound` where there is none."""
    require_assigned(await missions.require(session, call.workspace_id, mission_id), call)


async def require_access(mission: Mission, call: Call, db: Database) -> None:
    """Let an agent act only for a mission that takes its score and its roles (the third gate of C-22)."""
    if call.principal.kind is Kind.AGENT:
        async with db.workspace(call.workspace_id) as session:
            await trust.require_access(session, mission, call.principal.name)


async def require_start(mission: Mission, call: Call, db: Database, book: PolicyBook) -> None:
    """Let an agent start only what the policy and its budget allow (the second gate of C-22), and then the third.

    Raises:
        NotPermitted: `policy_denies`, or `policy_asks`, in which case an operator may start it.
        Conflict: `budget_exceeded`.
    """
    if call.principal.kind is not Kind.AGENT:
        return
    async with db.workspace(call.workspace_id) as session:
        verdict = await _judged(session, mission, call, book)
    if verdict.outcome is not Outcome.ALLOW:  # the verdict is kept all the same
        told = "starting it is denied" if verdict.outcome is Outcome.DENY else "an operator must start this mission"
        raise NotPermitted(verdict.refusal, f"{told}: {'; '.join(verdict.reasons)}")
    await queue.require_budget(db, call.workspace_id, call.principal.name)
    await require_access(mission, call, db)


async def begin(mission: Mission, call: Call, db: Database, gateway: Gateway, *, is_repeated: bool) -> str:
    """Start a mission's workflow, which is told of before and after; its run id."""
    async with db.workspace(call.workspace_id) as session:
        await missions.require_ready(session, mission)
        await missions.note_execute(session, mission, call.actor)
    package = PipelineInput(
        workspace_id=call.workspace_id,
        mission_id=mission.mission_id,
        started_by=call.actor.name,
        correlation_id=call.request_id,
    )
    run_id = await gateway.start(package, Severity(mission.severity), is_repeated=is_repeated)
    async with db.workspace(call.workspace_id) as session:
        await missions.note_start(session, call.workspace_id, mission.mission_id, run_id)
    return run_id


async def _judged(session: AsyncSession, mission: Mission, call: Call, book: PolicyBook) -> Verdict:
    doer = await agents.doer(session, call.principal, call.principal.own_agent)
    filed = {"mission_id": mission.mission_id, "filed_by": mission.created_by}
    context = Context(env=mission.env, protected=mission.protected, facts=filed)
    act = Act(action=START, principal=doer.who, context=context)
    name = f"{mission.mission_id}.start.{uuid4().hex}"  # a request's own id is its sender's to choose
    return (await book.judge(session, call.workspace_id, act, name, mission.mission_id))[0]


async def read_candidate(candidate: CandidateCreate, call: Call) -> NewCandidate:
    """Check a change at the door. Humans may name another author; others sign with their own name.

    Raises:
        InvalidInput: a diff that could never be applied safely.
    """
    named = candidate.author if call.principal.kind is Kind.HUMAN else None
    author = named or call.actor.name
    if candidate.diff is None:
        return NewCandidate(author, ref=candidate.ref)
    diff = candidate.diff.encode()
    # A diff of 16 MiB takes a second to read: the loop serves others meanwhile.
    await asyncio.to_thread(inspect_patch, diff)
    return NewCandidate(author, diff=diff)
