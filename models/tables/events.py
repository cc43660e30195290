"""The event stream, and the memory of requests already answered.

`event` is partitioned by month, which SQLModel cannot say: the migration makes it, and `models.store.events` writes it.
"""

from sqlalchemy import BigInteger, Integer
from sqlmodel import Field

from models.tables.base import Json, SQLModel, Time, json, key, now


class EventRow(SQLModel, table=True):
    """One immutable event; `(epoch, xid, id)` is its place in the stream."""

    __tablename__ = "event"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    occurred_at: Time = now()
    xid: int = Field(sa_type=BigInteger)
    epoch: int = Field(sa_type=Integer)
    workspace_id: str
    type: str
    subject_kind: str
    subject_id: str
    actor: str
    correlation_id: str
    data: Json = json("{}")


class Idempotency(SQLModel, table=True):
    """What a request with an Idempotency-Key was answered."""

    workspace_id: str = key()
    idempotency_key: str = key()
    route: str
    digest: str
    status_code: int | None = None
    response: str | None = None
    created_at: Time = now()
