"""Writing events in the transaction of the change they tell of, and reading them in the order of the stream."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.canonical import canonical_json
from models.domain.events import Event, EventType, Subject
from models.store.database import mark_events


@dataclass(frozen=True)
class Actor:
    """Who does it, and in which chain of causes: every event names both."""

    name: str
    correlation_id: str


@dataclass(frozen=True, order=True)
class Place:
    """A place in the stream. Identity values commit out of order, so `(epoch, xid, id)` is the order of facts."""

    epoch: int
    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.xid}-{self.id}"

    @classmethod
    def parse(cls, value: str) -> "Place":
        """Read a `Last-Event-ID`; raises ValueError when it is none of ours."""
        epoch, xid, number = (int(part) for part in value.split("-"))
        return cls(epoch, xid, number)


async def append(
    session: AsyncSession,
    workspace_id: str,
    kind: EventType,
    subject: Subject,
    actor: Actor,
    data: dict[str, Any] | None = None,
) -> None:
    """Write an event in the caller's transaction."""
    await session.execute(
        _INSERT,
        {
            "workspace_id": workspace_id,
            "type": kind.value,
            "subject_kind": subject.kind,
            "subject_id": subject.id,
            "actor": actor.name,
            "correlation_id": actor.correlation_id,
            "data": canonical_json(data or {}).decode(),
        },
    )
    mark_events(session)


_INSERT = text(
    "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)"
    " VALUES (:workspace_id, :type, :subject_kind, :subject_id, :actor, :correlation_id, CAST(:data AS jsonb))"
)

_COLUMNS = (
    "epoch, CAST(xid AS text) AS xid, id, occurred_at, workspace_id, type, subject_kind, subject_id, actor,"
    " correlation_id, data"
)


async def settled_after(session: AsyncSession, after: Place, limit: int = 1000) -> list[tuple[Place, Event]]:
    """Read the next events that no running transaction can precede any more, of all workspaces (system door)."""
    rows = await session.execute(_TAIL, {"epoch": after.epoch, "xid": str(after.xid), "id": after.id, "limit": limit})
    return [_event(row) for row in rows.mappings()]


_TAIL = text(
    f"SELECT {_COLUMNS} FROM event"  # noqa: S608  # a constant of this module, no input
    " WHERE (epoch, xid, id) > (:epoch, CAST(:xid AS xid8), :id)"
    " AND (epoch < mc_epoch() OR xid < pg_snapshot_xmin(pg_current_snapshot()))"
    " ORDER BY epoch, xid, id LIMIT :limit"
)


async def last_settled(session: AsyncSession) -> Place:
    """Find where the stream stands now: what a new tail starts after."""
    row = (await session.execute(_LAST)).one_or_none()
    return Place(row.epoch, int(row.xid), row.id) if row else Place(0, 0, 0)


_LAST = text(
    "SELECT epoch, CAST(xid AS text) AS xid, id FROM event"
    " WHERE epoch < mc_epoch() OR xid < pg_snapshot_xmin(pg_current_snapshot())"
    " ORDER BY epoch DESC, xid DESC, id DESC LIMIT 1"
)


def _event(row: Any) -> tuple[Place, Event]:
    place = Place(row["epoch"], int(row["xid"]), row["id"])
    return place, Event(
        id=str(place),
        type=row["type"],
        workspace_id=row["workspace_id"],
        correlation_id=row["correlation_id"],
        occurred_at=row["occurred_at"],
        actor=row["actor"],
        subject=Subject(kind=row["subject_kind"], id=row["subject_id"]),
        data=row["data"],
    )
