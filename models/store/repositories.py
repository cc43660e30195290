"""The git repositories that missions may change: registered, found, and found by their place."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import or_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.events import EventType, Subject
from models.domain.names import spelt
from models.domain.repositories import RepositoryUrl, usable
from models.schemas.pagination import PageRequest
from models.schemas.repositories import RepositoryCreate
from models.store import events, lists
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.workspaces import Repository


async def register(
    session: AsyncSession,
    workspace_id: str,
    new: RepositoryCreate,
    place: RepositoryUrl | InvalidInput,
    actor: Actor,
) -> Repository:
    """Register a repository at a place that was looked at.

    Raises:
        InvalidInput: its URL is not one we may use.
        Conflict: `repository_exists`; a name and a place are registered once.
    """
    url = usable(place).url
    values = _values(new) | {"url": url, "name": new.name or _name(url)}
    added = await _add(session, workspace_id, values, actor)
    if added is None:
        raise Conflict("repository_exists", await _which(session, workspace_id, values))
    return added


async def _which(session: AsyncSession, workspace_id: str, values: dict[str, Any]) -> str:
    """Say which repository is in the way of a new one: that of the same place, else that of the same name."""
    same = or_(col(Repository.url) == values["url"], col(Repository.name) == values["name"])
    statement = select(Repository).where(col(Repository.workspace_id) == workspace_id, same)
    found = (await session.scalars(statement.order_by((col(Repository.url) == values["url"]).desc()))).first()
    if found and found.url == values["url"]:
        return f"that place is registered already, as {found.name!r} ({found.repository_id})"
    return f"another repository has the name {values['name']!r}: give this one another name"


async def require(session: AsyncSession, workspace_id: str, name: str) -> Repository:
    """Read a repository by its id or its name; it must be there."""
    return _there(await _find(session, workspace_id, name), name)


async def resolve(
    session: AsyncSession,
    workspace_id: str,
    wanted: str,
    place: RepositoryUrl | InvalidInput,
    env: str,
    actor: Actor,
    *,
    may_register: bool,
) -> Repository:
    """Find the repository that a mission names by id, name or place.

    `place` is what a look at `wanted` found. One on this machine that nobody registered is registered now, unprotected,
    for the environment `env`, if the caller may register repositories.

    Raises:
        NotFound: `repository_not_found`; nobody registered it.
        InvalidInput: a place that we may not use.
    """
    found = await _find(session, workspace_id, wanted)
    if found is None and ("/" in wanted or ":" in wanted):
        there = usable(place)
        found = await _find(session, workspace_id, there.url)
        if found is None and there.path is not None and may_register:
            found = await _register_path(session, workspace_id, there.url, env, actor)
    return _there(found, wanted)


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[Repository]:
    """Read one page of repositories."""
    keys = (col(Repository.created_at), col(Repository.repository_id))
    return await lists.fetch(session, Repository, workspace_id, filters, keys, page)


async def urls(session: AsyncSession) -> list[str]:
    """List where the repositories of all workspaces are, each place once (system door)."""
    return list(await session.scalars(select(Repository.url).distinct().order_by(Repository.url)))


async def _find(session: AsyncSession, workspace_id: str, name: str) -> Repository | None:
    """Look by id, name and place. Chosen names hold no `/` or `:`, so none can pose as a place; an id goes first."""
    named = col(Repository.name).in_((name, spelt(name)))
    statement = select(Repository).where(
        Repository.workspace_id == workspace_id,
        or_(col(Repository.repository_id) == name, named, col(Repository.url) == name),
    )
    return (await session.scalars(statement.order_by((col(Repository.repository_id) == name).desc()))).first()


async def _register_path(
    session: AsyncSession, workspace_id: str, path: str, env: str, actor: Actor
) -> Repository | None:
    """Register a local path under its own name; of several callers at once the first does it."""
    values = _values(RepositoryCreate(url=path, env=env)) | {"name": path}
    return await _add(session, workspace_id, values, actor) or await _find(session, workspace_id, path)


async def _add(session: AsyncSession, workspace_id: str, values: dict[str, Any], actor: Actor) -> Repository | None:
    own = {"workspace_id": workspace_id, "repository_id": str(uuid4()), "created_by": actor.name}
    statement = insert(Repository).values(**values, **own).on_conflict_do_nothing().returning(Repository)
    added = (await session.scalars(statement)).one_or_none()
    if added is not None:
        about = Subject(kind="repository", id=added.repository_id)
        data = {"name": added.name, "target_branch": added.target_branch, "protected": added.protected}
        await events.append(session, workspace_id, EventType.REPOSITORY_REGISTERED, about, actor, data)
    return added


def _values(new: RepositoryCreate) -> dict[str, Any]:
    return new.model_dump(mode="json") | {"commands": new.commands.model_dump(mode="json", exclude_none=True)}


def _there(repository: Repository | None, name: str) -> Repository:
    if repository is None:
        raise NotFound("repository_not_found", f"no repository {name!r} is registered; ask an operator to register it")
    return repository


def _name(url: str) -> str:
    return url.rstrip("/").removesuffix("/.git").removesuffix(".git").replace(":", "/").rpartition("/")[2][:256]
