"""The memory of a workspace: code fragments and playbook notes, kept or proposed (POL-17, V-19)."""

from secrets import token_hex
from typing import Annotated

from fastapi import Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import AnyWriter, Db, Newest, OnlyOnce, Operator, Policies, Reader
from api.missions import require_access, require_assigned
from api.routing import router
from api.views import page_of
from models.domain.errors import Conflict, NotPermitted
from models.domain.memory import NoteKind, NoteState, scope_of, scoped
from models.schemas.envelope import Page, Success
from models.schemas.memory import MemoryCreate, MemorySummary, MemoryView
from models.store import memory, missions
from models.store.database import Database
from models.tables.missions import Mission

routes = router("memory")


@routes.post("/memory", status_code=201, response_model=Success[MemoryView])
async def write_memory(new: MemoryCreate, call: AnyWriter, once: OnlyOnce, db: Db, book: Policies) -> Response:
    """Write a note. An agent's is kept, proposed to people or refused, as its mission's scope and the policy say."""
    mission, memory_id = await _meant(new.mission_id, call, db), f"memory_{token_hex(8)}"
    scope = scope_of(mission.trust_requirements if mission else {}, call.principal)

    async def write(session: AsyncSession) -> MemoryView | Conflict | NotPermitted:
        judged, law = await memory.judge(session, memory_id, mission, call.principal, book)
        resolvers = law.policy.resolvers(memory.KIND)
        try:
            verdict = scoped(judged, scope)
            written = await memory.write(session, call.workspace_id, memory_id, new, verdict, resolvers, call.actor)
        except (Conflict, NotPermitted) as refusal:
            return refusal  # what was judged is kept all the same
        return MemoryView.model_validate(written)

    return await once.commit(write)


@routes.get("/memory")
async def list_memory(
    call: Reader,
    db: Db,
    page: Newest,
    state: NoteState = NoteState.KEPT,
    kind: NoteKind | None = None,
    tag: str | None = None,
    mission_id: str | None = None,
    text: Annotated[str, Query(max_length=200, description="Words, each in the title or the body.")] = "",
) -> Success[Page[MemorySummary]]:
    """List notes without their text, the newest first. Others than kept ones are for their authors and operators."""
    filters = {"state": state, "kind": kind, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        return page_of(MemorySummary, await memory.list_page(session, call.principal, filters, tag, text, page))


@routes.get("/memory/{memory_id}")
async def get_memory(memory_id: str, call: Reader, db: Db) -> Success[MemoryView]:
    """Show a note."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=MemoryView.model_validate(await memory.require(session, call.principal, memory_id)))


@routes.delete("/memory/{memory_id}", response_model=Success[MemoryView])
async def withdraw_memory(memory_id: str, call: Operator, once: OnlyOnce) -> Response:
    """Withdraw a note: it counts no more, and stays in the records; a question about it is withdrawn, too."""

    async def withdraw(session: AsyncSession) -> MemoryView:
        return MemoryView.model_validate(await memory.withdraw(session, call.principal, memory_id, call.actor))

    return await once.commit(withdraw)


async def _meant(mission_id: str | None, call: Call, db: Database) -> Mission | None:
    """Find the mission that a note is about; agents write only for those that are theirs and take them."""
    if mission_id is None:
        return None
    async with db.workspace(call.workspace_id) as session:
        mission = await missions.require(session, call.workspace_id, mission_id)
    require_assigned(mission, call)
    await require_access(mission, call, db)
    return mission
