"""The committed documents are what the code says, and the API's document is whole."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.openapi import documents
from tests.fixtures.api import Caller

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text())
METHODS = ("get", "post", "put", "patch", "delete")
OPERATIONS = [
    (path, method, item[method]) for path, item in DOCUMENT["paths"].items() for method in METHODS if method in item
]
NO_ENVELOPE = ("text/event-stream", "text/plain", "application/octet-stream", "application/x-ndjson")
"""Streams, exports, logs, diffs and stored things go out as they are (C-06)."""


@pytest.mark.parametrize(("path", "text"), documents().items(), ids=lambda value: getattr(value, "name", ""))
def test_committed_documents_are_what_the_code_says(path: Path, text: str) -> None:
    assert path.read_text() == text, "run `make openapi` and commit what it wrote"


async def test_it_is_served(client: Caller) -> None:
    assert (await client(None).get("/api/openapi")).json() == DOCUMENT


def test_version() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def references(value: Any) -> list[str]:
    """All `$ref`s in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for item in value.values() for reference in references(item)]
    return [reference for item in value for reference in references(item)] if isinstance(value, list) else []


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_answer_has_the_envelope(path: str, method: str, operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if status.startswith("2"):
            assert status == "204" or content, f"{method} {path} does not say what it answers"
            for kind, body in content.items():
                if kind not in NO_ENVELOPE:
                    assert body["schema"]["$ref"].startswith("#/components/schemas/Success_"), f"{method} {path}"
        else:
            assert content["application/json"]["schema"]["$ref"] == "#/components/schemas/Failure"
    assert {"4XX", "5XX"} <= set(operation["responses"]) or not path.startswith("/api")


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_names_are_snake_case(path: str, method: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "header":
            assert parameter["name"] == parameter["name"].lower(), f"{method} {path}"


def test_only_the_envelope_has_a_camel_case_name() -> None:
    names = {name for schema in DOCUMENT["components"]["schemas"].values() for name in schema.get("properties", {})}
    assert {name for name in names if name != name.lower()} == {"requestId"}


async def test_a_stranger_reads_the_document(client: Caller) -> None:
    answer: httpx2.Response = await client(None).get("/api-docs")
    assert "/api/openapi" in answer.text
