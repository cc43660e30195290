"""Texts are UTF-8 whatever the machine's locale is: what we wrote, we read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("models", "activities", "workflows", "worker", "api", "cli")


def careless(source: str) -> Iterator[int]:
    """The lines where a text's encoding is left to the machine."""
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        taken = {"read_text": 0, "write_text": 1}.get(call.func.attr)
        if taken is not None and len(call.args) <= taken and all(word.arg != "encoding" for word in call.keywords):
            yield call.lineno


@pytest.mark.parametrize("package", PRODUCT)
def test_each_says_its_encoding(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    found = [f"{file}:{line}" for file in files for line in careless(file.read_text("utf-8"))]
    assert (bool(files), found) == (True, [])


def test_the_test_finds_one() -> None:
    sources = ("p.read_text()", "p.read_text(errors='replace')", "p.write_text(x)", "p.read_text('utf-8')", "p.read()")
    assert [list(careless(source)) for source in sources] == [[1], [1], [1], [], []]
