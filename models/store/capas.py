"""Corrective and preventive actions: opened, listed, moved along."""

from collections.abc import Mapping
from uuid import uuid4

from sqlalchemy import func, insert, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.events import EventType, Subject
from models.domain.refusals import missing
from models.domain.states import CAPA_TRANSITIONS, CapaStatus, require_transition
from models.schemas.capa import CapaCreate, CapaPatch
from models.schemas.pagination import PageRequest
from models.store import events, lists, missions
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.missions import Capa


async def create(session: AsyncSession, workspace_id: str, new: CapaCreate, actor: Actor) -> Capa:
    """Open a CAPA; raises `NotFound` when it names a mission that is not there."""
    if new.mission_id is not None:
        await missions.require(session, workspace_id, new.mission_id)
    values = {
        **new.model_dump(mode="json"),
        "workspace_id": workspace_id,
        "capa_id": str(uuid4()),
        "status": CapaStatus.OPEN.value,
        "created_by": actor.name,
    }
    capa = (await session.scalars(insert(Capa).values(**values).returning(Capa))).one()
    await _tell(session, capa, EventType.CAPA_CREATED, actor)
    return capa


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[Capa]:
    """Read one page of CAPAs."""
    keys = (col(Capa.created_at), col(Capa.capa_id))
    return await lists.fetch(session, Capa, workspace_id, filters, keys, page)


async def require(session: AsyncSession, workspace_id: str, capa_id: str) -> Capa:
    """Read a CAPA that must be there."""
    return _there(await session.get(Capa, (workspace_id, capa_id)), capa_id)


async def change(session: AsyncSession, workspace_id: str, capa_id: str, patch: CapaPatch, actor: Actor) -> Capa:
    """Move a CAPA along, or fill it in.

    Raises:
        NotFound: no such CAPA.
        IllegalTransition: its state does not lead to the wanted one.
    """
    capa = _there(await session.get(Capa, (workspace_id, capa_id), with_for_update=True), capa_id)
    if patch.status is not None:
        require_transition(CAPA_TRANSITIONS, CapaStatus(capa.status), patch.status)
    statement = (
        update(Capa)
        .where(col(Capa.workspace_id) == workspace_id, col(Capa.capa_id) == capa_id)
        .values(**patch.changes, updated_at=func.mc_now())
        .returning(Capa)
    )
    capa = (await session.scalars(statement, execution_options={"populate_existing": True})).one()
    await _tell(session, capa, EventType.CAPA_CHANGED, actor)
    return capa


def _there(capa: Capa | None, capa_id: str) -> Capa:
    if capa is None:
        raise missing("CAPA", capa_id)
    return capa


async def _tell(session: AsyncSession, capa: Capa, kind: EventType, actor: Actor) -> None:
    about = Subject(kind="capa", id=capa.capa_id)
    data = {"mission_id": capa.mission_id, "status": capa.status}
    await events.append(session, capa.workspace_id, kind, about, actor, data)
