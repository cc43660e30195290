"""Telling people that the audit log contradicts what was signed: somebody changed it, or it was restored."""

import structlog

from models.domain.alerts import AlertKind
from models.domain.errors import Conflict
from models.domain.events import Subject
from models.store import alerts
from models.store.alerts import NewAlert
from models.store.database import Database
from models.store.events import Actor
from models.store.keys import DEFAULT_WORKSPACE

ABOUT = "audit_log"
log = structlog.get_logger()


class Alarm:
    """The alert of one who keeps the log, where the platform's admins are: raised once, resolved when all agrees again.

    The log is the installation's, and who changed it must not be told by a line in a worker's log only.
    """

    def __init__(self, db: Database, keeper: str) -> None:
        self._db, self._about = db, Subject(kind=ABOUT, id=keeper)
        self._actor = Actor("worker", keeper)
        self._may_ring = True  # as it may from before this process began

    async def ring(self, error: Exception) -> None:
        """Raise it where the log was found to contradict what was signed; what else fails is tried again anyway."""
        if not isinstance(error, Conflict):
            return
        self._may_ring = True
        found = NewAlert(AlertKind.LOG_TAMPERED, self._about, error.message, {"code": error.code, **error.details})
        try:
            async with self._db.workspace(DEFAULT_WORKSPACE) as session:
                await alerts.sound(session, DEFAULT_WORKSPACE, self._actor, found)
        except Exception as unheard:  # the keeper goes on, and rings again when it fails again
            log.error("alert_not_raised", error=type(unheard).__name__)

    async def rest(self) -> None:
        """Resolve it: what is kept agrees with the log."""
        if self._may_ring:
            async with self._db.workspace(DEFAULT_WORKSPACE) as session:
                about = [self._about.id]
                await alerts.resolve_all(session, DEFAULT_WORKSPACE, AlertKind.LOG_TAMPERED, about, self._actor)
            self._may_ring = False
