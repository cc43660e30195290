"""What the very first start of an installation makes: a workspace, and a key to it."""

import asyncio
import os
import tempfile
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.domain.errors import Misconfigured, Unavailable
from models.domain.events import EventType
from models.domain.names import FIRST_START
from models.domain.principals import Kind, Principal, Role
from models.schemas.workspaces import WorkspaceCreate
from models.settings import Settings
from models.store import api_keys, keys, principals, system, workspaces
from models.store.database import Database
from models.store.events import Actor
from models.store.migrate import expected_revision
from models.store.policies import PolicyBook
from models.tables.workspaces import PrincipalRow

log = structlog.get_logger()

AGAIN_SECONDS = 0.5
_DEFAULT = WorkspaceCreate(slug=keys.DEFAULT_WORKSPACE, name="Default")


async def ensure_first_admin(db: Database, settings: Settings) -> None:
    """Make the workspace `default` and its platform admin's key, unless one lasts; several processes may ask at once.

    The key goes to `settings.key_file` (0600) before it is known to Postgres: a crash between the two leaves a dead
    file, which the next start replaces, and never a key that nobody has.

    Raises:
        Unavailable: the file cannot be written.
    """
    async with db.system() as session:
        await keys.lock_first_start(session)
        if made := await workspaces.insert_workspace(session, _DEFAULT):
            await workspaces.tell(session, made, EventType.WORKSPACE_CREATED, _actor(), {"name": made.name})
        if await keys.has_platform_admin(session, keys.DEFAULT_WORKSPACE):
            return
        secret = keys.new_secret()
        await asyncio.to_thread(_write_key, settings.key_file, secret)
        await _make_admin(session, secret)
    log.info("first_admin_key_written", workspace_id=keys.DEFAULT_WORKSPACE, file=str(settings.key_file))


async def _make_admin(session: AsyncSession, secret: str) -> None:
    """Give the first admin this key. Keys of another role that it had by then end: they are not lifted with it."""
    place, role, actor = keys.DEFAULT_WORKSPACE, Role.PLATFORM_ADMIN, _actor()
    name = await _first_admin(session, place)
    known = await session.get(PrincipalRow, (place, name))
    if known is None or known.deactivated_at or known.role != role:
        await api_keys.revoke_all(session, place, name, actor)
        installer = Principal(place, actor.name, Kind.HUMAN, role, key_id="")
        await principals.set_role(session, place, name, role, installer, actor)
    await api_keys.insert_key(session, place, {"principal": name, **keys.of_secret(secret)}, actor)


async def _first_admin(session: AsyncSession, place: str) -> str:
    """Name the first admin: `admin`, or the next one of that name which no agent or service has."""
    others = select(PrincipalRow.name).where(
        PrincipalRow.workspace_id == place, PrincipalRow.kind != Kind.HUMAN.value, col(PrincipalRow.name).like("admin%")
    )
    taken = set(await session.scalars(others))
    names = chain(["admin"], (f"admin-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


async def ensure_first_policy(db: Database, settings: Settings) -> None:
    """Put the policy of `config/` in force in the workspace `default`, unless it has one.

    Raises:
        Unavailable: the file cannot be read, or says what no policy can.
    """
    async with db.workspace(keys.DEFAULT_WORKSPACE) as session:
        await PolicyBook(settings.config_dir).in_force(session, keys.DEFAULT_WORKSPACE)


async def keep_trying_first_start(db: Database, settings: Settings) -> None:
    """Make the first key and the first policy. A database that is away, or not migrated yet, is waited for.

    Raises:
        Misconfigured: `schema_differs`.
        Unavailable: a file cannot be read or written.
    """
    while True:
        try:
            await ensure_first_admin(db, settings)
            return await ensure_first_policy(db, settings)
        except (DBAPIError, NoConnection) as error:
            said = str(getattr(error, "orig", None) or error).splitlines()[0]
            if isinstance(error, _REFUSED) and await _is_migrated(db):
                raise Misconfigured("schema_differs", _DIFFERS.format(expected_revision(), said)) from error
            log.warning("first_start_waits", error=f"{type(error).__name__}: {said}")
            await asyncio.sleep(AGAIN_SECONDS)


_REFUSED = (ProgrammingError, IntegrityError, DataError)
"""What a server says that was asked, and understood; all else may be better at another time."""
_DIFFERS = (
    "the database says that it has schema {}, but is not like it ({}): it was changed by hand, or made by another "
    "version. Restore it from a dump (docs/runbook.md), or start on another database or data folder"
)


async def _is_migrated(db: Database) -> bool:
    """Whether the schema has the name of the one that we expect; where nobody can tell, we ask again later."""
    with suppress(SQLAlchemyError):
        async with db.system() as session:
            return (await system.schema(session)).revision == expected_revision()
    return False


def _actor() -> Actor:
    return Actor(FIRST_START, f"start/{os.getpid()}")


def _write_key(target: Path, secret: str) -> None:
    """Write beside the target and rename, so that whoever reads it finds a whole key."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600 from the start
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as error:
        raise Unavailable(
            "key_file_not_written", f"cannot write the first API key to {target}: {error.strerror}; set MC_API_KEY_FILE"
        ) from error
