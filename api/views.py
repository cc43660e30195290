"""How stored things are shown: rows, runs, an agent with its caps, a key as it stands, a mission with its addresses."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from models.contracts.missions import Evidence
from models.domain.budgets import Owner, cap_of
from models.schemas import links
from models.schemas.agents import CAPS, AgentView
from models.schemas.envelope import Page, Success
from models.schemas.keys import KeyMade, KeyView
from models.schemas.missions import MissionView
from models.schemas.runs import RunView
from models.settings import Settings
from models.store import api_keys, budgets, packages, runs
from models.store.pagination import Rows
from models.tables.agents import AgentRow
from models.tables.missions import Mission
from models.tables.workspaces import ApiKey

View = TypeVar("View", bound=BaseModel)


def page_of(view: type[View], found: Rows[Any]) -> Success[Page[View]]:
    """Show each row, an object or its columns, as `view`."""
    items = _items(view).validate_python(found.rows, from_attributes=True)
    return Success.model_construct(data=Page.model_construct(items=items, next_cursor=found.next_cursor))


@cache
def _items(view: type[View]) -> TypeAdapter[list[View]]:
    return TypeAdapter(list[view])  # type: ignore[valid-type]  # a type that is known at run time


async def agent_views(session: AsyncSession, workspace_id: str, found: Sequence[AgentRow]) -> list[AgentView]:
    """Show agents with the caps that hold for each."""
    caps = await budgets.limits(session, workspace_id, *(agent.name for agent in found))
    views = [AgentView.model_validate(agent) for agent in found]
    for view in views:
        for scope, name in CAPS.items():
            owners = {Owner.AGENT: view.name, Owner.LEVEL: view.level.value}
            setattr(view, name, cap_of(caps, scope, owners).usd)
    return views


async def agent_view(session: AsyncSession, agent: AgentRow) -> AgentView:
    """Show an agent with the caps that hold for it."""
    [view] = await agent_views(session, agent.workspace_id, [agent])
    return view


async def key_views(session: AsyncSession, found: Sequence[ApiKey]) -> list[KeyView]:
    """Show keys, and how they stand."""
    states = await api_keys.states(session, found)
    return [KeyView(**key.model_dump(), state=state) for key, state in zip(found, states, strict=True)]


async def key_view(session: AsyncSession, key: ApiKey) -> KeyView:
    """Show a key, and how it stands."""
    [view] = await key_views(session, [key])
    return view


async def key_made(session: AsyncSession, key: ApiKey, secret: str) -> KeyMade:
    """Show a new key with its secret."""
    return KeyMade(**(await key_view(session, key)).model_dump(), secret=secret)


async def run_view(session: AsyncSession, workspace_id: str, run_id: str, agent: str | None = None) -> RunView:
    """Show an execution with what it took; only `agent`'s own, where one is given."""
    return RunView.model_validate(await runs.find(session, workspace_id, run_id, agent))


async def mission_view(session: AsyncSession, mission: Mission, settings: Settings) -> MissionView:
    """Show a mission's package as it is now."""
    return view_of(await packages.read(session, mission.workspace_id, mission.mission_id), settings)


def view_of(row: Mapping[str, Any], settings: Settings) -> MissionView:
    """Show a package that was read; once it has run, its links lead to Temporal's UI and to its report, too."""
    view = packages.shown(row)
    view.links.update(mission_links(row["workspace_id"], view.mission_id, row["run_id"], settings))
    view.links.update(diagnostics_link(view.evidence))
    return view


def diagnostics_link(stored: Sequence[Evidence]) -> dict[str, str]:
    """Lead to the newest report of a mission, where it has one."""
    reports = [item.uri for item in stored if item.kind == "diagnostics"]
    return {"diagnostics": reports[-1]} if reports else {}


def mission_links(workspace_id: str, mission_id: str, run_id: str | None, settings: Settings) -> dict[str, str]:
    """The addresses of a mission and of what belongs to it."""
    place = links.mission(mission_id)
    found = {
        "self": place,
        "stages": f"{place}/stages",
        "candidates": f"{place}/candidates",
        "evidence": f"{place}/evidence",
        "events": f"{links.API}/events?subject={mission_id}",
        "decisions": f"{links.API}/decisions?mission_id={mission_id}",
        "api_docs": links.API_DOCS,
    }
    if run_id:
        ui, namespace = settings.temporal_ui_url, settings.temporal_namespace
        found["temporal"] = links.temporal(ui, namespace, workspace_id, mission_id)
    return found
