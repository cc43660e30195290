"""Writing events in the transaction of the change they tell of, and reading them in the order of the stream."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.canonical import canonical_json
from models.domain.events import Event, EventType, Subject
from models.schemas.events import content_of
from models.store.database import mark_events, within

log = structlog.get_logger()


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
        if not (found := _PLACE.fullmatch(value)):
            raise ValueError("not a place in the event stream")
        place = cls(*(int(part) for part in found.groups()))
        if place.epoch > _END.epoch or place.xid > _END.xid or place.id > _END.id:
            raise ValueError("beyond any place in an event stream")
        return place


_PLACE = re.compile("([0-9]{1,10})-([0-9]{1,20})-([0-9]{1,19})")
_END = Place(2**31 - 1, 2**64 - 1, 2**63 - 1)
"""The largest that the columns hold."""


BEGINNING = Place(0, 0, 0)


async def append(
    session: AsyncSession,
    workspace_id: str,
    kind: EventType,
    subject: Subject,
    actor: Actor,
    data: dict[str, Any] | None = None,
) -> Place:
    """Write an event in the caller's transaction; its place in the stream."""
    values = {
        "workspace_id": workspace_id,
        "type": kind.value,
        "subject_kind": subject.kind,
        "subject_id": subject.id,
        "actor": actor.name,
        "correlation_id": actor.correlation_id,
        "data": canonical_json(data or {}).decode(),
    }
    [written] = await within(session)(_INSERT, values)
    mark_events(session)
    return Place(written["epoch"], int(written["xid"]), written["id"])


_INSERT = """
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    VALUES (%(workspace_id)s, %(type)s, %(subject_kind)s, %(subject_id)s, %(actor)s, %(correlation_id)s,
    CAST(%(data)s AS jsonb))
    RETURNING epoch, CAST(xid AS text) AS xid, id
"""


async def append_everywhere(
    session: AsyncSession, kind: EventType, subject: Subject, actor: Actor, data: dict[str, Any]
) -> None:
    """Write an event about the installation into each workspace (system door)."""
    values = {
        "type": kind.value,
        "subject_kind": subject.kind,
        "subject_id": subject.id,
        "actor": actor.name,
        "correlation_id": actor.correlation_id,
        "data": canonical_json(data).decode(),
    }
    await within(session)(_INSERT_EVERYWHERE, values)
    mark_events(session)


_INSERT_EVERYWHERE = """
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, %(type)s, %(subject_kind)s, %(subject_id)s, %(actor)s, %(correlation_id)s,
    CAST(%(data)s AS jsonb) FROM workspace
"""


@dataclass(frozen=True)
class NewEvent:
    """An event that is still to be written."""

    kind: EventType
    subject: Subject
    actor: Actor
    data: dict[str, Any]


async def append_all(session: AsyncSession, workspace_id: str, batch: Sequence[NewEvent]) -> list[Place]:
    """Write several events of a workspace in the caller's transaction, in one statement; their places, in order."""
    values = {
        "workspace_id": workspace_id,
        "types": [event.kind.value for event in batch],
        "kinds": [event.subject.kind for event in batch],
        "ids": [event.subject.id for event in batch],
        "actors": [event.actor.name for event in batch],
        "correlations": [event.actor.correlation_id for event in batch],
        "data": [canonical_json(event.data).decode() for event in batch],
    }
    written = await session.execute(_INSERT_ALL, values)
    mark_events(session)
    return [_place(row) for row in written]


_INSERT_ALL = text(
    "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)"
    " SELECT :workspace_id, type, kind, id, actor, correlation, CAST(data AS jsonb)"
    " FROM unnest(CAST(:types AS text[]), CAST(:kinds AS text[]), CAST(:ids AS text[]), CAST(:actors AS text[]),"
    " CAST(:correlations AS text[]), CAST(:data AS text[])) WITH ORDINALITY"
    " AS t (type, kind, id, actor, correlation, data, number) ORDER BY number"
    " RETURNING epoch, CAST(xid AS text) AS xid, id"
)

IN_INDEX_ORDER = text("SET LOCAL enable_sort = off")
"""Postgres guesses far too few rows behind a row comparison, and would sort a million to return the first 500."""

# `xid` here is text, for drivers know no xid8: ORDER BY must name `event.xid`, or 1000 sorts before 999.
# What drivers cannot read in one row, they read in none: `data` is read by us, and times end where Python's do.
_COLUMNS = (
    "epoch, CAST(xid AS text) AS xid, id, workspace_id, type, subject_kind, subject_id, actor, correlation_id,"
    " CAST(data AS text) AS data,"
    " LEAST(GREATEST(occurred_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS occurred_at"
)


async def settled_after(session: AsyncSession, after: Place, limit: int = 1000) -> list[tuple[Place, Event]]:
    """Read the next events that no running transaction can precede any more, of all workspaces (system door)."""
    await session.execute(IN_INDEX_ORDER)
    rows = await session.execute(_TAIL, {"epoch": after.epoch, "xid": str(after.xid), "id": after.id, "limit": limit})
    return [_event(row) for row in rows.mappings()]


_TAIL = text(
    f"SELECT {_COLUMNS} FROM event"  # noqa: S608  # a constant of this module, no input
    " WHERE (epoch, xid, id) > (:epoch, CAST(:xid AS xid8), :id)"
    " AND (epoch < mc_epoch() OR xid < pg_snapshot_xmin(pg_current_snapshot()))"
    " ORDER BY epoch, event.xid, id LIMIT :limit"
)


async def last_settled(session: AsyncSession) -> Place:
    """Find where the stream stands now: what a new tail starts after."""
    row = (await session.execute(_LAST)).one_or_none()
    return _place(row) if row else BEGINNING


_LAST = text(
    "SELECT epoch, CAST(xid AS text) AS xid, id FROM event"
    " WHERE epoch < mc_epoch() OR xid < pg_snapshot_xmin(pg_current_snapshot())"
    " ORDER BY epoch DESC, event.xid DESC, id DESC LIMIT 1"
)


REPLAY_CHUNK = 100
MAX_REPLAY = 10_000
REPLAY_HOURS = 24
"""How much of the past a stream sends again (requirements 5.2); lists show the rest."""


async def between(
    session: AsyncSession,
    workspace_id: str,
    after: Place,
    upto: Place,
    types: frozenset[EventType] | None = None,
    subject_id: str | None = None,
) -> list[tuple[Place, Event]]:
    """Read the first `REPLAY_CHUNK` events of a workspace in `(after, upto]`; `upto` must be settled."""
    values = {
        **_range(workspace_id, after, upto),
        "types": None if types is None else [kind.value for kind in types],
        "subject_id": subject_id,
        "limit": REPLAY_CHUNK,
    }
    await session.execute(IN_INDEX_ORDER)
    return [_event(row) for row in (await session.execute(_BETWEEN, values)).mappings()]


async def replayable_after(session: AsyncSession, workspace_id: str, after: Place, upto: Place) -> Place | None:
    """Find where a replay of `(after, upto]` must begin when it cannot send all of it (system door).

    None when it can. Else something is left out: too old, too much, or gone with its month's partition.
    """
    if after == upto:
        return None
    known = after == BEGINNING or (await session.execute(_EXISTS, _numbers("a", after))).scalar_one()
    if after > upto:  # seen through another process whose tail is ahead of ours, or never given out by this database
        return None if known else upto
    values = {**_range(workspace_id, after, upto), "rows": MAX_REPLAY, "hours": REPLAY_HOURS}
    await session.execute(IN_INDEX_ORDER)
    newest_left_out = (await session.execute(_TOO_OLD, values)).one_or_none()
    if newest_left_out:
        return _place(newest_left_out)
    return None if known else after


_IN_RANGE = (
    " FROM event WHERE workspace_id = :workspace_id"
    " AND (epoch, xid, id) > (:a_epoch, CAST(:a_xid AS xid8), :a_id)"
    " AND (epoch, xid, id) <= (:b_epoch, CAST(:b_xid AS xid8), :b_id)"
)
_BETWEEN = text(
    f"SELECT {_COLUMNS}{_IN_RANGE}"  # constants of this module, no input
    " AND (CAST(:types AS text[]) IS NULL OR type = ANY(CAST(:types AS text[])))"
    " AND (CAST(:subject_id AS text) IS NULL OR subject_id = CAST(:subject_id AS text))"
    " ORDER BY epoch, event.xid, id LIMIT :limit"
)
_EXISTS = text("SELECT EXISTS (SELECT FROM event WHERE (epoch, xid, id) = (:a_epoch, CAST(:a_xid AS xid8), :a_id))")
_TOO_OLD = text(
    "WITH newest AS (SELECT epoch, CAST(xid AS text) AS xid, id, occurred_at,"  # noqa: S608  # as above
    f" row_number() OVER (ORDER BY epoch DESC, event.xid DESC, id DESC) AS number{_IN_RANGE}"
    " ORDER BY epoch DESC, event.xid DESC, id DESC LIMIT :rows + 1)"
    " SELECT epoch, xid, id FROM newest"
    " WHERE number > :rows OR occurred_at < mc_now() - make_interval(hours => :hours) ORDER BY number LIMIT 1"
)


def _range(workspace_id: str, after: Place, upto: Place) -> dict[str, Any]:
    return {"workspace_id": workspace_id, **_numbers("a", after), **_numbers("b", upto)}


def _numbers(prefix: str, place: Place) -> dict[str, Any]:
    return {f"{prefix}_epoch": place.epoch, f"{prefix}_xid": str(place.xid), f"{prefix}_id": place.id}


def _place(row: Any) -> Place:
    return Place(row.epoch, int(row.xid), row.id)


def _event(row: Any) -> tuple[Place, Event]:
    """Pass a row on as it is, whatever it holds: one that was refused would stop the streams of all workspaces."""
    place = Place(row["epoch"], int(row["xid"]), row["id"])
    return place, Event.model_construct(
        id=str(place),
        type=_type(row["type"]),
        workspace_id=row["workspace_id"],
        correlation_id=row["correlation_id"],
        occurred_at=row["occurred_at"],
        actor=row["actor"],
        subject=Subject.kept(row["subject_kind"], row["subject_id"]),
        data=content_of(row["data"]),
    )


@lru_cache(maxsize=1000)
def _type(name: str) -> EventType:
    """Read a type; one that a newer version's process writes beside us is told of once, and passed on as it is."""
    try:
        return EventType(name)
    except ValueError:
        log.warning("event_type_unknown", type=name)
        return EventType.unlisted(name)
