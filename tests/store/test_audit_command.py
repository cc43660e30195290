"""`audit verify` says no more than an export proves."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.audit import app
from models.store.database import Database
from tests.fixtures.api import Team, make_team
from tests.fixtures.audit import act, emptied, exported, filled, new_key


@pytest.fixture
async def lines(db: Database, team: Team, database_url: str, tmp_path: Path) -> list[str]:
    """An export with rows of two workspaces, and one that is not sealed."""
    emptied(database_url)
    other = await make_team(db)
    await filled(db, new_key(tmp_path), [team.workspace_id, other.workspace_id], 28)
    await act(db, team.workspace_id)
    return await exported(db, team.workspace_id)


def verified(folder: Path, lines: list[str], *options: str) -> Result:
    export, public = folder / "log.jsonl", folder / "pub"
    export.write_text("\n".join(lines) + "\n")
    public.write_text(new_key(folder).public_openssh)
    return CliRunner().invoke(app, ["verify", str(export), "--key", str(public), *options])


async def test_it_counts_what_is_not_proved(lines: list[str], tmp_path: Path) -> None:
    shown = verified(tmp_path, lines)
    assert shown.exit_code == 0
    assert "1 rows that are not sealed" in shown.stdout
    assert "14 leaves: of other workspaces, or withheld" in shown.stdout
    assert json.loads(verified(tmp_path, lines, "--json").stdout)["hidden"] == 14


async def test_strictly_all_must_be_sealed(lines: list[str], tmp_path: Path) -> None:
    refused = verified(tmp_path, lines, "--strict")
    assert (refused.exit_code, refused.stderr.startswith("unsealed: 1 rows")) == (1, True)
    sealed = [line for line in lines if json.loads(line)["kind"] != "unsealed"]
    assert verified(tmp_path, sealed, "--strict").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_nothing_proves_nothing(lines: list[str], tmp_path: Path, options: tuple[str, ...]) -> None:
    head = json.dumps(json.loads(lines[0]) | {"leaves": 0})
    refused = verified(tmp_path, [head, lines[-1]], *options)
    assert (refused.exit_code, "nothing_to_verify" in refused.output) == (1, True)


async def test_an_export_steers_no_terminal(lines: list[str], tmp_path: Path) -> None:
    at = next(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "row")
    lines[at] = json.dumps(json.loads(lines[at]) | {"seq": "\x1b[2J\x1b]0;all is well\x07"})
    refused = verified(tmp_path, lines)
    assert refused.exit_code == 1
    assert "\x1b" not in refused.output
