"""Workflows name activities and messages by reference, so that types hold and a new name is one everywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").rglob("*.py"))
ASKS = ("execute_activity", "execute_activity_method", "execute_local_activity_method", ".signal")


def findings(source: str) -> Iterator[str]:
    """Name the calls that are given a string for what they ask for."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(ASKS):
            first = next(iter([*node.args, *(keyword.value for keyword in node.keywords)]), None)
            if isinstance(first, ast.Constant | ast.JoinedStr):
                yield ast.unparse(node.func)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_activities_and_messages_by_reference(path: Path) -> None:
    assert list(findings(path.read_text())) == []


@pytest.mark.parametrize("line", ["workflow.execute_activity('merge')", "handle.signal(f'{name}_granted', grant)"])
def test_a_string_is_found(line: str) -> None:
    assert len(list(findings(line))) == 1


def test_a_reference_is_none() -> None:
    assert list(findings("workflow.execute_activity_method(Records.conclude, 'end')")) == []
