"""What workflow code, rules and contracts may not touch; the sandbox does not watch modules it passes through."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").rglob("*.py"))
STORE = sorted((ROOT / "models/store").glob("*.py"))
PURE = [*WORKFLOWS, *sorted((ROOT / "models/domain").glob("*.py")), *sorted((ROOT / "models/contracts").glob("*.py"))]
FORBIDDEN = {"datetime.now", "datetime.utcnow", "date.today", "uuid.uuid4", "uuid4", "time.time", "time.sleep", "open"}
FORBIDDEN_MODULES = {"random", "os.environ"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, by the name it is written with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_code_reads_no_clock_no_chance_and_no_file(path: Path) -> None:
    for name, _ in calls(path):
        assert name not in FORBIDDEN
        assert name.rpartition(".")[0] not in FORBIDDEN_MODULES


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_activities_and_messages_by_reference(path: Path) -> None:
    for name, call in calls(path):
        if name.endswith(("execute_activity", "execute_activity_method", "execute_local_activity_method", ".signal")):
            assert not isinstance(call.args[0], ast.Constant), f"{name} is given a string"


@pytest.mark.parametrize("path", STORE, ids=lambda path: path.name)
def test_the_store_leaves_commits_to_its_callers(path: Path) -> None:
    assert not [name for name, _ in calls(path) if name.endswith(".commit")]
