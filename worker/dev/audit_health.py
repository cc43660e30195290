"""Tells how the audit log does: how far it is sealed and mirrored, and what contradicts it."""

from dataclasses import dataclass

from models.domain.alerts import AlertKind
from models.settings import Settings
from models.store import alerts, audit_tree
from models.store.audit_tree import Standing
from models.store.database import Database
from models.store.keys import DEFAULT_WORKSPACE

MEND = "see docs/runbook.md, The audit log is not sealed, or not mirrored"
LATE_SECONDS = 60
"""Sealing and mirroring are due every second, and tried again within half a minute."""


@dataclass(frozen=True)
class AuditHealth:
    """How far the log is kept; `trouble` is empty where all is well."""

    standing: str
    trouble: str


async def audit_health(settings: Settings) -> AuditHealth:
    """Look at the log's rows and at what its keepers have told of."""
    async with Database.briefly(settings) as database:
        async with database.system() as session:
            standing = await audit_tree.standing(session)
            unmirrored = await audit_tree.unmirrored_seconds(session) if settings.audit_mirror else 0.0
        async with database.workspace(DEFAULT_WORKSPACE) as session:
            told = await alerts.standing(session, DEFAULT_WORKSPACE, AlertKind.LOG_TAMPERED)
    trouble = [alert.summary for alert in told]
    trouble += _late("sealed", standing.unsealed_seconds) + _late("mirrored", unmirrored)
    return AuditHealth(_standing(standing, is_mirrored=bool(settings.audit_mirror)), "; ".join(trouble))


def _late(what: str, seconds: float) -> list[str]:
    return [f"nothing was {what} for {seconds:.0f} s"] if seconds > LATE_SECONDS else []


def _standing(standing: Standing, *, is_mirrored: bool) -> str:
    mirrored = f", {standing.mirrored} of them mirrored" if is_mirrored else ", no mirror set"
    return f"{standing.sealed} rows sealed{mirrored}"
