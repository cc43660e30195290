"""Whose key this is, asked of Postgres at most once a second per key; and when keys were used, written now and then."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from api.batches import Batches
from models.domain.errors import Unauthenticated
from models.domain.keys import SESSION_PREFIX
from models.domain.principals import Principal
from models.store import keys
from models.store.database import Database

KEEP_SECONDS = 1.0
"""How long a revoked key may still open the door of other processes than the one that revoked it, and a new one be
unknown that was tried before it was made."""
MAX_KEPT = 10_000
"""Good ones, and as many unknown: some megabytes, and more than one process serves within a second."""
GATHER_SECONDS, MAX_GATHERED = 0.05, 1_000
"""How long, and how many, keys gather that come from addresses which have guessed too often: so often is Postgres asked
at most, however many there are, and a good key among them is not refused."""
NOTE_SECONDS = 30.0
"""How late `last_used_at` may be: no request writes to the database."""


_KEYS, _SESSIONS = "keys", "sessions"


class KeyRing:
    """The keys that were good, or unknown, a moment ago. Of the unknown ones so many: guessing fills no memory."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._kept: dict[str, tuple[float, Principal]] = {}
        self._unknown: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._doubtful = Batches[str, Principal | None](self._find_later, MAX_GATHERED)
        self._used: dict[tuple[str, str], datetime] = {}
        self._changed = 0.0

    async def open(self, secret: str, *, at_once: bool = True) -> Principal:
        """Find the owner of an API key, or of a browser session's cookie.

        What is not to be asked of Postgres `at_once` waits to be asked together with others, unless it was good lately.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        digest = keys.digest(secret)
        if known := self._recall(digest):
            return known
        async with self._asking.setdefault(digest, asyncio.Lock()):
            if known := self._recall(digest):  # somebody else with this key asked meanwhile: a crowd asks once
                return known
            try:
                return await self._ask(secret, digest, at_once=at_once or digest in self._kept)
            finally:
                self._asking.pop(digest, None)

    def lately(self, secret: str) -> Principal | None:
        """Tell whose key it was when it was last used, without asking: for what opens nothing."""
        return self._kept.get(keys.digest(secret), (0.0, None))[1] if secret else None

    def _recall(self, digest: str) -> Principal | None:
        now = time.monotonic()
        if self._unknown.get(digest, 0.0) > now:
            raise _unknown_key()
        until, known = self._kept.get(digest, (0.0, None))
        return known if until > now else None

    async def _ask(self, secret: str, digest: str, *, at_once: bool) -> Principal:
        asked, kind = time.monotonic(), _SESSIONS if secret.startswith(SESSION_PREFIX) else _KEYS
        if at_once:
            [principal] = await self._find(kind, [digest])
        else:
            principal = await self._doubtful.ask(kind, digest)
        if principal is None:
            self._kept.pop(digest, None)
            if len(self._unknown) >= MAX_KEPT:
                self._unknown.clear()
            self._unknown[digest] = asked + KEEP_SECONDS
            raise _unknown_key()
        self._keep(digest, principal, asked)
        self._used[principal.workspace_id, principal.key_id] = datetime.now(UTC)
        return principal

    async def _find_later(self, kind: str, digests: Sequence[str]) -> list[Principal | None]:
        await asyncio.sleep(GATHER_SECONDS)
        return await self._find(kind, digests)

    async def _find(self, kind: str, digests: Sequence[str]) -> list[Principal | None]:
        find = keys.find_sessions if kind == _SESSIONS else keys.find_all
        found = await find(self._db, digests)
        return [found.get(digest) for digest in digests]

    async def note_uses(self) -> None:
        """Write down, for as long as the process serves, when keys were last used."""
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            await self.note_now()

    async def note_now(self) -> None:
        """Write down what is known now: what somebody changes just then, the next time. What fails is let go."""
        used, self._used = self._used, {}
        if used:
            with suppress(SQLAlchemyError, OSError):
                async with self._db.system() as session:
                    noted = await keys.note_uses(session, used)
                left = {name: at for name, at in used.items() if name not in noted}
                self._used = left | self._used

    def forget_all(self) -> None:
        """Ask anew for every key: some were just ended, or their owners may do something else now."""
        self._kept.clear()
        self._unknown.clear()
        self._changed = time.monotonic()

    def _keep(self, digest: str, principal: Principal, now: float) -> None:
        if now <= self._changed:  # asked before: the answer may be that of before, too
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept = {name: entry for name, entry in self._kept.items() if entry[0] > now}
        self._kept[digest] = (now + KEEP_SECONDS, principal)


def _unknown_key() -> Unauthenticated:
    return Unauthenticated("invalid_api_key", "this API key is unknown, revoked or expired")
