"""The memory of requests already answered.

`event` is partitioned by month, which SQLModel cannot say: the migration makes it, and `models.store.events` writes it.
"""

from models.tables.base import SQLModel, Time, key, now


class Idempotency(SQLModel, table=True):
    """What a request with an Idempotency-Key was answered."""

    workspace_id: str = key()
    idempotency_key: str = key()
    route: str
    digest: str
    status_code: int | None = None
    response: str | None = None
    created_at: Time = now()
