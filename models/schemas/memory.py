"""Bodies of the memory routes."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.contracts.missions import Name
from models.domain import spellings
from models.domain.memory import MAX_BODY, NoteKind, NoteState
from models.schemas.envelope import Body

Tag = Annotated[str, Field(max_length=64, pattern=spellings.TAG)]


def _once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


class MemoryCreate(Body):
    """Writes a note, of a mission or on its own."""

    kind: NoteKind
    title: Name
    body: Annotated[str, Field(min_length=1, max_length=MAX_BODY)]
    tags: Annotated[tuple[Tag, ...], Field(max_length=20), AfterValidator(_once)] = ()
    mission_id: Name | None = None


class MemorySummary(BaseModel):
    """A note without its text. A proposed one waits for the decision that it names."""

    model_config = ConfigDict(from_attributes=True)

    memory_id: str
    kind: NoteKind
    title: str
    tags: tuple[str, ...]
    mission_id: str | None
    digest: str
    state: NoteState
    decision_id: str | None
    written_by: str
    created_at: datetime
    changed_by: str | None
    changed_at: datetime | None


class MemoryView(MemorySummary):
    """A note with its text."""

    body: str
