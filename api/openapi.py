"""`python -m api.openapi`: writes the committed documents of the API anew."""

import json
from pathlib import Path
from typing import Any

from api.app import create_app
from models.schemas.events import stream_schema
from models.settings import Settings

DOCS = Path(__file__).resolve().parents[1] / "docs"


def documents() -> dict[Path, str]:
    """What each committed document should hold: the OpenAPI document and the event schema (EVT-04, V-76)."""
    return {
        DOCS / "openapi.json": _written(create_app(Settings()).openapi()),
        DOCS / "event-schema.json": _written(stream_schema()),
    }


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them."""
    for path, text in documents().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
