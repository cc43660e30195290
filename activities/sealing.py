"""The sealer: gives audit rows their places in the tree, and signs checkpoints. Whoever acts never waits for it."""

import asyncio
import base64
from pathlib import Path

import structlog

from activities.alarm import Alarm
from activities.workbench.files import write_whole
from activities.workbench.signing import ServiceKey
from models.domain.checkpoints import raw_key
from models.domain.errors import Conflict, MissionControlError
from models.store import audit_tree, signing_keys
from models.store.audit_tree import Signer
from models.store.database import Database
from models.store.events import Actor

EVERY_SECONDS = 1.0
"""What is changed before it is sealed leaves no trace: this long is the moment in which somebody can."""
AGAIN_SECONDS = 5.0
"""A database that is away comes back within seconds, and nothing is sealed meanwhile."""
MEMORY = "signed-checkpoint"
"""Of a worker's data folder: the newest checkpoint of its key that was signed or seen there."""
SEALER = Actor("worker", "sealer")
_GIVEN = "\n---\n"
"""Between the checkpoint that is in the database, and one that was given to it."""
_UNREADABLE = "unreadable"
"""No checkpoint: an empty file, or none that can be read, is not the same as one that was never there."""
log = structlog.get_logger()


class Sealer:
    """Seals what has settled. Each worker runs one; Postgres lets one seal at a time, whole batches or nothing.

    `memory` is a file with the newest checkpoint of this key that was signed or seen here. Who takes the log in the
    database back behind it, or writes it anew, gets nothing signed, and people are told.
    """

    def __init__(
        self, db: Database, key: ServiceKey, batch: int = audit_tree.AT_ONCE, memory: Path | None = None
    ) -> None:
        self._db, self._key, self._batch, self._memory = db, key, batch, memory
        self._alarm = Alarm(db, "sealer")
        self._signer = Signer(key.key_id, raw_key(key.public_openssh), lambda text: base64.b64decode(key.sign(text)))

    async def run(self) -> None:
        """Seal for as long as the process works. What fails is tried again, and seen in the delay at `/metrics`.

        A tree that is not that of its checkpoint is an alert.
        """
        published = False
        while True:
            try:
                if not published:
                    await self._publish()
                    published = True
                if await self.seal():  # else another one may have had its turn, and nobody has looked
                    await self._alarm.rest()
                await asyncio.sleep(EVERY_SECONDS)
            except Exception as error:  # whatever it is, a log that nobody seals is worse
                log.error("sealing_failed", error=said(error))
                await self._alarm.ring(error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def seal(self) -> int:
        """Seal all that is settled now, batch by batch; how many rows."""
        await self._look()
        total = 0
        while True:
            known, given = self._remembered()
            async with self._db.system() as session:
                sealed = await audit_tree.seal(session, self._signer, self._batch, known, given)
                if sealed.note:
                    self._remember(known, sealed.note)
            if sealed.note:
                self._remember(sealed.note)
            total += sealed.rows
            if sealed.rows < self._batch:
                return total

    async def _look(self) -> None:
        """Remember also what others sign, and what we did and did not hear of; find out that it was taken back."""
        if self._memory:
            known, given = self._remembered()
            async with self._db.system() as session:
                newest = await audit_tree.seen(session, self._signer.public_key, known)
            if newest != known:
                self._remember(newest, given if given != newest else "")

    def _remembered(self) -> tuple[str, str]:
        """Read what is known to be in the database, and what was given to it and may be in."""
        try:
            known = self._memory.read_text("utf-8", "replace") if self._memory and self._memory.exists() else None
        except OSError:
            known = ""
        in_there, _, given = ("" if known is None else known or _UNREADABLE).partition(_GIVEN)
        return in_there, given

    def _remember(self, known: str, given: str = "") -> None:
        """Keep what was signed before it can be in the database, and again once it is: no answer to a commit is one."""
        if self._memory and self._remembered() != (known, given):
            try:
                write_whole(self._memory, (known + (given and _GIVEN + given)).encode())
            except OSError as error:
                message = f"what was signed cannot be kept in {self._memory.name}: {error.strerror}; mend its folder"
                raise Conflict("audit_memory_unwritable", message) from None

    async def _publish(self) -> None:
        """Let readers verify what will be signed, before anything is."""
        async with self._db.system() as session:
            await signing_keys.publish(session, self._key.key_id, self._key.public_openssh, SEALER)


def said(error: Exception) -> str:
    """Tell an error of ours by its message; others by their kind, for they may quote what is secret."""
    return error.message if isinstance(error, MissionControlError) else type(error).__name__
