"""The git repositories that missions may change: registered, found, and found by their place."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, or_, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.events import EventType, Subject
from models.domain.names import PRODUCTION, environment, spelt
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
    env: str,
    actor: Actor,
    *,
    may_share: bool = False,
) -> Repository:
    """Register a repository at a place that was looked at, for `env` where it names no environment.

    Who `may_share` may do so where another workspace has it.

    Raises:
        InvalidInput: its URL is not one we may use.
        Conflict: `repository_exists`, a name and a place are registered once; `repository_elsewhere`, in whichever
            workspace.
    """
    there = usable(place)
    values = _values(new, there, env, new.name or _name(there.url))
    is_elsewhere = await _hold(session, there)
    found = await _at(session, workspace_id, there)
    if is_elsewhere and not (found or may_share):
        raise _elsewhere()
    added = None if found else await _add(session, workspace_id, values, actor)
    if added is None:
        raise Conflict("repository_exists", _in_the_way(found, values["name"]))
    return added


async def _hold(session: AsyncSession, there: RepositoryUrl) -> bool:
    """Have nobody else register the place until this transaction ends; whether another workspace has it."""
    return bool(await session.scalar(_HOLD, {"place": there.place}))


_HOLD = text("SELECT mc_hold_place(:place)")


def _elsewhere() -> Conflict:
    """Say no more of another workspace than that it has the place."""
    told = (
        "another workspace has registered that place; a platform admin may register it here, too (POST /repositories)"
    )
    return Conflict("repository_elsewhere", told)


def _in_the_way(found: Repository | None, name: str) -> str:
    """Say what is in the way of a new repository: the one of the same place, else one of the same name."""
    if found:
        return f"that place is registered already, as {found.name!r} ({found.repository_id})"
    return f"another repository has the name {name!r}: give this one another name"


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
        Conflict: `repository_elsewhere`; another workspace did.
        InvalidInput: a place that we may not use.
    """
    found = await _strictest(session, workspace_id, _is_called(wanted), of_id=wanted)
    if found is None and ("/" in wanted or ":" in wanted):
        there = usable(place)
        found = await _at(session, workspace_id, there)
        if found is None and there.path is not None and may_register:
            found = await _register_path(session, workspace_id, there, env, actor)
    return _there(found, wanted)


async def governing(session: AsyncSession, workspace_id: str, repository_id: str) -> Repository:
    """Read the repository whose rules hold at the place of one that must be there."""
    is_meant = col(Repository.repository_id) == repository_id
    return _there(await _strictest(session, workspace_id, is_meant), repository_id)


async def rules_of(session: AsyncSession, repository: Repository) -> dict[str, Any]:
    """Tell the environment and protection of its missions: the strictest of all who registered the place, wherever."""
    rules = (await session.execute(_RULES, {"place": repository.place})).one()
    env = PRODUCTION if rules.is_production else repository.env
    return {"env": env, "protected": repository.protected or rules.is_protected}


_RULES = text("SELECT is_production, is_protected FROM mc_rules_at(:place)")


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
    """Look by id, name and place; an id goes first."""
    statement = select(Repository).where(Repository.workspace_id == workspace_id, _is_called(name))
    return (await session.scalars(statement.order_by((col(Repository.repository_id) == name).desc()))).first()


def _is_called(name: str) -> ColumnElement[bool]:
    """Whether a name says a repository. Chosen names hold no `/` or `:`, so none can pose as a place."""
    named = col(Repository.name).in_((name, spelt(name)))
    return or_(col(Repository.repository_id) == name, named, col(Repository.url) == name)


async def _at(session: AsyncSession, workspace_id: str, there: RepositoryUrl) -> Repository | None:
    """Look by place, however it was spelt."""
    same = or_(col(Repository.place) == there.place, col(Repository.url) == there.url)
    return await _strictest(session, workspace_id, same)


async def _strictest(
    session: AsyncSession, workspace_id: str, is_meant: ColumnElement[bool], of_id: str = ""
) -> Repository | None:
    """Find the one with the strictest rules at the place of those that are meant.

    A place may be registered several times: before its spellings were compared, they were.
    """
    meant = col(Repository.workspace_id) == workspace_id
    same = aliased(Repository)
    statement = (
        select(same)
        .join(Repository, and_(meant, is_meant, col(same.place) == col(Repository.place)))
        .where(same.workspace_id == workspace_id)
        .order_by(
            (col(Repository.repository_id) == of_id).desc(),
            (col(same.env) == PRODUCTION).desc(),
            col(same.protected).desc(),
            col(same.created_at),
        )
    )
    return (await session.scalars(statement)).first()


async def _register_path(
    session: AsyncSession, workspace_id: str, there: RepositoryUrl, env: str, actor: Actor
) -> Repository | None:
    """Register a local path under its own name; of several callers at once the first does it."""
    is_elsewhere = await _hold(session, there)
    if found := await _at(session, workspace_id, there):
        return found
    if is_elsewhere:
        raise _elsewhere()
    values = _values(RepositoryCreate(url=there.url), there, env, there.url)
    return await _add(session, workspace_id, values, actor)


async def _add(session: AsyncSession, workspace_id: str, values: dict[str, Any], actor: Actor) -> Repository | None:
    own = {"workspace_id": workspace_id, "repository_id": str(uuid4()), "created_by": actor.name}
    statement = insert(Repository).values(**values, **own).on_conflict_do_nothing().returning(Repository)
    added = (await session.scalars(statement)).one_or_none()
    if added is not None:
        about = Subject(kind="repository", id=added.repository_id)
        data = {name: getattr(added, name) for name in ("name", "url", "env", "target_branch", "protected")}
        await events.append(session, workspace_id, EventType.REPOSITORY_REGISTERED, about, actor, data)
    return added


def _values(new: RepositoryCreate, there: RepositoryUrl, env: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "url": there.url,
        "place": there.place,
        "target_branch": new.target_branch,
        "protected": new.protected,
        "env": new.env or environment(env),
        "commands": new.commands.model_dump(mode="json", exclude_none=True),
    }


def _there(repository: Repository | None, name: str) -> Repository:
    if repository is None:
        raise NotFound("repository_not_found", f"no repository {name!r} is registered; ask an operator to register it")
    return repository


def _name(url: str) -> str:
    return url.rstrip("/").removesuffix("/.git").removesuffix(".git").replace(":", "/").rpartition("/")[2][:256]
