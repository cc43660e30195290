"""The event schema, held to examples: what consumers may rely on, and what they will never be sent (EVT-04, EVT-06)."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import ValidationError
from pydantic import TypeAdapter
from pydantic import ValidationError as Refused

from models.domain.events import Event, EventType, Subject
from models.schemas.events import EventPost, ReplayGap
from tests.fixtures.watching import SCHEMA

EXAMPLES = Path(__file__).parent / "events"
SENT: TypeAdapter[Event | ReplayGap] = TypeAdapter(Event | ReplayGap)


def examples(kind: str) -> list[Path]:
    """The files of one kind."""
    return sorted((EXAMPLES / kind).glob("*.json"))


@pytest.mark.parametrize("example", examples("valid"), ids=lambda path: path.stem)
def test_valid(example: Path) -> None:
    event = json.loads(example.read_text())
    SCHEMA.validate(event)
    assert json.loads(SENT.validate_python(event).model_dump_json()) == event


@pytest.mark.parametrize("example", examples("invalid"), ids=lambda path: path.stem)
def test_invalid(example: Path) -> None:
    event = json.loads(example.read_text())
    with pytest.raises(ValidationError):
        SCHEMA.validate(event)
    with pytest.raises(Refused):
        SENT.validate_python(event)


@pytest.mark.parametrize("kind", EventType)
def test_every_type_there_is(kind: EventType) -> None:
    event = Event(
        id="1-2-3",
        type=kind,
        workspace_id="w",
        correlation_id="c",
        occurred_at=datetime.now(UTC),
        actor="a",
        subject=Subject(kind="k", id="i"),
        data={},
    )
    SCHEMA.validate(json.loads(event.model_dump_json()))


@pytest.mark.parametrize("kind", EventType)
def test_clients_may_post_what_tells_of_no_row_of_ours(kind: EventType) -> None:
    body = {"type": kind.value, "subject": {"kind": "k", "id": "i"}}
    if kind in (EventType.SUBSYSTEM_ERROR, EventType.SUBSYSTEM_REPORT):
        assert EventPost.model_validate(body).type is kind
    else:
        with pytest.raises(Refused):
            EventPost.model_validate(body)
