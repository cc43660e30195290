"""Sizes that keep a module readable in one go (the style guide's budget)."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FUNCTION = 50


def python_files() -> list[str]:
    """Every Python file of the project, also one not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split() if (ROOT / name).exists()]


def limit(name: str) -> int:
    """Lines that a file may have."""
    if name.startswith("tests/"):
        return 600
    return 300 if name.startswith("workflows/") else 400


@pytest.mark.parametrize("name", python_files())
def test_a_file_keeps_to_its_size(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= limit(name)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MAX_FUNCTION, f"{node.name} has {lines} lines"
