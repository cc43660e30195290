"""Whose key this is, asked of Postgres at most once a second per key."""

import time

from models.domain.errors import Unauthenticated
from models.domain.principals import Principal
from models.store import keys
from models.store.database import Database

KEEP_SECONDS = 1.0
"""How long a revoked key may still open the door."""
MAX_KEPT = 10_000


class KeyRing:
    """The keys that were good a moment ago. Only good ones are kept: guessing fills no memory."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._kept: dict[str, tuple[float, Principal]] = {}

    async def open(self, secret: str) -> Principal:
        """Find the owner of an API key, or of a browser session's cookie.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        digest, now = keys.digest(secret), time.monotonic()
        known = self._kept.get(digest)
        if known and known[0] > now:
            return known[1]
        async with self._db.system() as session:
            find = keys.find_session if secret.startswith(keys.SESSION_PREFIX) else keys.find
            principal = await find(session, digest)
        if principal is None:
            self._kept.pop(digest, None)
            raise Unauthenticated("invalid_api_key", "this API key is unknown, revoked or expired")
        self._keep(digest, principal, now)
        return principal

    def forget(self, secret: str) -> None:
        """Ask anew the next time: the session was just closed."""
        self._kept.pop(keys.digest(secret), None)

    def _keep(self, digest: str, principal: Principal, now: float) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept = {name: entry for name, entry in self._kept.items() if entry[0] > now}
        self._kept[digest] = (now + KEEP_SECONDS, principal)
