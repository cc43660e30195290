"""Bodies of the event routes, and the schema of what the stream sends."""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json

from models.domain.canonical import canonical_json
from models.domain.errors import TooLarge
from models.domain.events import Event, EventType, Subject
from models.schemas.envelope import Body, Bounds
from models.schemas.idempotency import IdempotencyKey

MAX_DATA_BYTES = 64 * 1024
"""An event tells of a thing and links to it; logs and reports are stored as such."""


class EventPost(Body):
    """A fact that a service or an agent reports; all other types are written only with the fact they tell of."""

    bounds: ClassVar[Bounds] = Bounds(values=50_000)
    type: Literal[EventType.SUBSYSTEM_ERROR, EventType.SUBSYSTEM_REPORT]
    subject: Subject
    data: dict[str, Any] = Field(default_factory=dict, description=f"At most {MAX_DATA_BYTES} bytes as JSON.")
    idempotency_key: Annotated[IdempotencyKey | None, Field(description="As the header Idempotency-Key.")] = None

    def require_small(self) -> None:
        """Refuse what would make every watcher wait; raises `TooLarge`."""
        if len(canonical_json(self.data)) > MAX_DATA_BYTES:
            raise TooLarge("event_too_large", f"an event's data is at most {MAX_DATA_BYTES} bytes; send a link instead")


class EventAccepted(BaseModel):
    """What a posted event is answered: its place in the stream, and whether it was there already."""

    id: str
    deduped: bool = False


class ReplayGap(BaseModel):
    """Sent in a stream instead of events that are too old to replay; what follows continues after `resumed_after`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["replay.gap"] = "replay.gap"
    asked_after: str
    resumed_after: str
    reason: str


def stream_schema() -> dict[str, Any]:
    """Describe what `data:` lines of the event stream hold (EVT-04)."""
    schema = TypeAdapter(Event | ReplayGap).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Mission Control events", **schema}


def content_of(text: str) -> dict[str, Any]:
    """Read what a stored event or row of the audit log says, also where somebody made it what no answer can hold."""
    try:
        found = json.loads(text)
        to_json(found)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"unreadable": text}
