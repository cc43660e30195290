"""What the routes of one mission share: finding it, and who may act for it."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from api.auth import Call
from api.deps import Db
from models.domain.errors import NotPermitted
from models.domain.patches import inspect_patch
from models.domain.principals import Kind
from models.schemas.missions import CandidateCreate
from models.store import missions, trust
from models.store.candidates import NewCandidate
from models.store.database import Database
from models.tables.missions import Mission


async def _this_mission(mission_id: str, request: Request, db: Db) -> Mission:
    call: Call = request.state.call
    async with db.workspace(call.workspace_id) as session:
        return await missions.require(session, call.workspace_id, mission_id)


ThisMission = Annotated[Mission, Depends(_this_mission)]
"""The mission in the path, as it was when the request came; 404 when the caller's workspace has none of that id."""


async def require_assignee(mission: Mission, call: Call, db: Database) -> None:
    """Let an agent act only for a mission that is assigned to it and lets it in; operators may act for all."""
    if call.principal.kind is not Kind.AGENT:
        return
    if mission.assigned_to != call.principal.name:
        raise NotPermitted("not_assigned", "this mission is not assigned to you; `GET /queue/next` assigns one")
    async with db.workspace(call.workspace_id) as session:
        await trust.require_access(session, mission, call.principal.name)


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
