"""`python -m api.openapi`: writes the committed documents that follow the code anew."""

import json
from pathlib import Path
from typing import Any

from api import state_machines
from api.app import create_app
from models.schemas.events import stream_schema
from models.settings import Settings

DOCS = Path(__file__).resolve().parents[1] / "docs"


def documents() -> dict[Path, str]:
    """What each committed document should hold: the API's, the event schema (EVT-04, V-76), the state machines."""
    return {
        DOCS / "openapi.json": _written(create_app(Settings()).openapi()),
        DOCS / "event-schema.json": _written(stream_schema()),
        DOCS / "state-machines.md": state_machines.page(),
    }


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them."""
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
