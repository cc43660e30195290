"""Alerts: raised once for each thing that is wrong, seen and resolved by people, or over by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from models.domain.alerts import AlertKind, AlertStatus, require_may_become
from models.domain.canonical import canonical_json
from models.domain.events import EventType, Subject
from models.domain.refusals import missing
from models.schemas.pagination import PageRequest
from models.store import events, lists, rows
from models.store.database import mark_events, within
from models.store.events import Actor
from models.store.ledger_statements import DAY, MONTH
from models.store.pagination import Rows
from models.tables.alerts import Alert


async def list_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[Alert]:
    """Read one page of alerts."""
    keys = (col(Alert.detected_at), col(Alert.alert_id))
    return await lists.fetch(session, Alert, workspace_id, filters, keys, page)


async def require(session: AsyncSession, workspace_id: str, alert_id: str, *, for_update: bool = False) -> Alert:
    """Read an alert that must be there; `for_update` locks it."""
    statement = lists.matching(Alert, workspace_id, {"alert_id": alert_id})
    if for_update:
        statement = statement.with_for_update()
    if (found := (await session.scalars(statement)).one_or_none()) is None:
        raise missing("alert", alert_id)
    return found


async def standing(session: AsyncSession, workspace_id: str, kind: AlertKind) -> Sequence[Alert]:
    """Read the alerts of a kind that are not resolved."""
    statement = lists.matching(Alert, workspace_id, {"kind": kind.value})
    return list(await session.scalars(statement.where(col(Alert.status) != AlertStatus.RESOLVED.value)))


@dataclass(frozen=True)
class NewAlert:
    """Something that was found to be wrong."""

    kind: AlertKind
    about: Subject
    summary: str
    details: Mapping[str, Any]


async def sound(session: AsyncSession, workspace_id: str, actor: Actor, *found: NewAlert) -> None:
    """Raise alerts with the time of detection; where one about the same is not resolved yet, that one stands.

    But one about a day or month that is over makes room for a later one's, and one that is ahead for today's.
    """
    values = {
        "workspace_id": workspace_id,
        "kinds": [alert.kind.value for alert in found],
        "subject_kinds": [alert.about.kind for alert in found],
        "subject_ids": [alert.about.id for alert in found],
        "summaries": [alert.summary for alert in found],
        "details": [canonical_json(alert.details).decode() for alert in found],
        "actor": actor.name,
        "correlation_id": actor.correlation_id,
    }
    await within(session)(_OUTLIVED, values)
    await within(session)(_SOUND, values)
    mark_events(session)


_SOUND = """
    WITH raised AS (
        INSERT INTO alert (workspace_id, alert_id, kind, subject_kind, subject_id, summary, details, detected_at)
        SELECT %(workspace_id)s, 'alert_' || replace(CAST(gen_random_uuid() AS text), '-', ''), kind, subject_kind,
        subject_id, summary, CAST(details AS jsonb), mc_now()
        FROM unnest(CAST(%(kinds)s AS text[]), CAST(%(subject_kinds)s AS text[]), CAST(%(subject_ids)s AS text[]),
        CAST(%(summaries)s AS text[]), CAST(%(details)s AS text[]))
        AS t (kind, subject_kind, subject_id, summary, details)
        ON CONFLICT DO NOTHING RETURNING *
    )
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, 'alert.raised', 'alert', alert_id, %(actor)s, %(correlation_id)s, details ||
    jsonb_build_object('kind', kind, 'subject_kind', subject_kind, 'subject_id', subject_id, 'summary', summary)
    FROM raised
"""


async def acknowledge(session: AsyncSession, workspace_id: str, alert_id: str, note: str | None, actor: Actor) -> Alert:
    """Say that somebody has seen it; raises `IllegalTransition` where somebody has before, or it is over."""
    alert = await require(session, workspace_id, alert_id, for_update=True)
    return await _move(session, alert, AlertStatus.ACKNOWLEDGED, _seen(actor), note, actor)


async def resolve(session: AsyncSession, workspace_id: str, alert_id: str, note: str | None, actor: Actor) -> Alert:
    """Say that it is over. Who resolves what nobody has acknowledged has seen it; raises `IllegalTransition`."""
    alert = await require(session, workspace_id, alert_id, for_update=True)
    seen = {} if alert.acknowledged_by else _seen(actor)
    return await _move(session, alert, AlertStatus.RESOLVED, seen, note, actor)


async def resolve_all(
    session: AsyncSession,
    workspace_id: str,
    kind: AlertKind,
    subjects: Sequence[str],
    actor: Actor,
    periods: list[str] | None = None,
) -> None:
    """Resolve what has ceased by itself, or because of what `actor` did; of each subject in its period, where given."""
    told = {"actor": actor.name, "correlation_id": actor.correlation_id}
    values = {"workspace_id": workspace_id, "kind": kind.value, "subjects": list(subjects), "periods": periods}
    await within(session)(_OVER, values | told)
    mark_events(session)


_RESOLVED = """
        UPDATE alert SET status = 'resolved', resolved_by = %(actor)s, resolved_at = mc_now()"""
_TOLD = """
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT workspace_id, 'alert.resolved', 'alert', alert_id, %(actor)s, %(correlation_id)s,
    jsonb_build_object('kind', kind, 'subject_kind', subject_kind, 'subject_id', subject_id) FROM over"""
_OVER = f"""
    WITH over AS ({_RESOLVED}
        WHERE workspace_id = %(workspace_id)s AND kind = %(kind)s AND subject_id = ANY(%(subjects)s)
        AND status <> 'resolved' AND (CAST(%(periods)s AS text[]) IS NULL OR (subject_id, details ->> 'period') IN (
            SELECT * FROM unnest(CAST(%(subjects)s AS text[]), CAST(%(periods)s AS text[]))
        )) RETURNING *
    ){_TOLD}
"""  # noqa: S608  # constants of this module, no input
_OUTLIVED = f"""
    WITH over AS ({_RESOLVED}
        FROM (
            SELECT kind, subject_id, CAST(details AS jsonb) ->> 'period' AS period
            FROM unnest(CAST(%(kinds)s AS text[]), CAST(%(subject_ids)s AS text[]), CAST(%(details)s AS text[]))
            AS t (kind, subject_id, details)
        ) found
        WHERE alert.workspace_id = %(workspace_id)s AND alert.kind = found.kind
        AND alert.subject_id = found.subject_id AND alert.status <> 'resolved' AND (
            (alert.details ->> 'period' < found.period AND alert.details ->> 'period' NOT IN ({DAY}, {MONTH}))
            OR (alert.details ->> 'period' > found.period AND found.period IN ({DAY}, {MONTH}))
        ) RETURNING alert.*
    ){_TOLD}
"""  # noqa: S608  # as above
_WINDOW_TURNED = f"""
    WITH due AS (
        SELECT a.workspace_id, a.alert_id FROM alert a
        WHERE a.kind = 'cost_spike' AND a.status <> 'resolved' AND (a.details ->> 'period' NOT IN ('', {DAY}, {MONTH})
        OR EXISTS (SELECT FROM budget b WHERE b.period <> '' AND b.workspace_id = a.workspace_id
        AND b.scope = a.details ->> 'scope' AND b.subject = a.details ->> 'subject'
        AND b.period = a.details ->> 'period' AND NOT b.crossed OFFSET 0))
        LIMIT %(limit)s FOR UPDATE OF a SKIP LOCKED
    ), over AS ({_RESOLVED}
        FROM due WHERE alert.workspace_id = due.workspace_id AND alert.alert_id = due.alert_id RETURNING alert.*
    ){_TOLD}
"""  # noqa: S608  # as above


_MISSION_ENDED = f"""
    WITH due AS (
        SELECT a.workspace_id, a.alert_id FROM alert a
        JOIN mission m ON m.workspace_id = a.workspace_id AND m.mission_id = a.subject_id AND m.ended_at IS NOT NULL
        WHERE a.kind = 'mission_unreachable' AND a.status <> 'resolved' LIMIT %(limit)s FOR UPDATE OF a SKIP LOCKED
    ), over AS ({_RESOLVED}
        FROM due WHERE alert.workspace_id = due.workspace_id AND alert.alert_id = due.alert_id RETURNING alert.*
    ){_TOLD}
"""  # noqa: S608  # as above


async def end_with_missions(session: AsyncSession, actor: Actor, limit: int) -> None:
    """Resolve what told of missions that have ended since (system door)."""
    told = {"actor": actor.name, "correlation_id": actor.correlation_id}
    await within(session)(_MISSION_ENDED, told | {"limit": limit})
    mark_events(session)


async def turn_windows(session: AsyncSession, actor: Actor, limit: int) -> None:
    """Resolve what tells of days and months that are over, or whose limit is open by now (system door)."""
    told = {"actor": actor.name, "correlation_id": actor.correlation_id}
    await within(session)(_WINDOW_TURNED, told | {"limit": limit})
    mark_events(session)


def _seen(actor: Actor) -> dict[str, Any]:
    return {"acknowledged_by": actor.name, "acknowledged_at": func.mc_now()}


async def _move(
    session: AsyncSession, alert: Alert, to: AlertStatus, values: dict[str, Any], note: str | None, actor: Actor
) -> Alert:
    is_over = alert.status == AlertStatus.RESOLVED
    by, at = (alert.resolved_by, alert.resolved_at) if is_over else (alert.acknowledged_by, alert.acknowledged_at)
    require_may_become(AlertStatus(alert.status), to, by, at)
    if to is AlertStatus.RESOLVED:
        values |= {"resolved_by": actor.name, "resolved_at": func.mc_now()}
    moved = await rows.set_columns(session, alert, status=to.value, note=note or alert.note, **values)
    data = {"kind": alert.kind, "subject_kind": alert.subject_kind, "subject_id": alert.subject_id, "note": note}
    about = Subject(kind="alert", id=alert.alert_id)
    await events.append(session, alert.workspace_id, _EVENTS[to], about, actor, data)
    return moved


_EVENTS = {
    AlertStatus.ACKNOWLEDGED: EventType.ALERT_ACKNOWLEDGED,
    AlertStatus.RESOLVED: EventType.ALERT_RESOLVED,
}
