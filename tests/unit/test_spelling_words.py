"""Whoever spells a name wrong is told in words how it is spelt, and is never shown a pattern."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field, TypeAdapter, ValidationError

from cli.settings import load
from models.domain.errors import InvalidInput
from models.domain.policy import Policy, parse_policy
from models.domain.spellings import HOST, WORDS
from models.domain.wording import plain
from models.schemas.repositories import RepositoryName
from tests.fixtures.policies import SOURCE

OPENAPI = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def patterns(schema: Any) -> Iterator[str]:
    """All that a schema holds texts to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from patterns(part)


def test_every_pattern_that_users_meet_has_its_words() -> None:
    met = {HOST, *patterns(json.loads(OPENAPI.read_text())), *patterns(Policy.model_json_schema())}
    assert met == set(WORDS)


@pytest.mark.parametrize("pattern", WORDS)
def test_a_refusal_is_those_words(pattern: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python("/ \n")
    assert plain(refused.value.errors()[0]["msg"]) == WORDS[pattern]
    assert not re.search(r"[\\^$+\[]", WORDS[pattern])


def test_of_a_repository() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(RepositoryName).validate_python(" my app")
    assert plain(refused.value.errors()[0]["msg"]).endswith("spaces, '.', _ and -, and begins with no space")


def test_of_a_rule_of_a_policy() -> None:
    named = re.sub(r"rule: [\w-]+", "rule: on my own", SOURCE, count=1)
    with pytest.raises(InvalidInput, match=r"rules\.0\.rule`: a rule's name holds .* no spaces"):
        parse_policy(named)


def test_of_a_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MC_HOST_ID", "my host")
    with pytest.raises(typer.Exit):
        load()
    assert capsys.readouterr().err == f"MC_HOST_ID: {WORDS[HOST]}\n"
