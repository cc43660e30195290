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
    assert "14 leaves of other workspaces" in shown.stdout
    assert "withheld" not in shown.stdout
    found = json.loads(verified(tmp_path, lines, "--json").stdout)
    assert (found["hidden"], found["counted"]) == (14, True)


async def test_strictly_all_must_be_sealed(lines: list[str], tmp_path: Path) -> None:
    refused = verified(tmp_path, lines, "--strict")
    assert (refused.exit_code, refused.stderr.startswith("unsealed: 1 rows")) == (1, True)
    sealed = [line for line in lines if json.loads(line)["kind"] != "unsealed"]
    assert verified(tmp_path, sealed, "--strict").exit_code == 0


async def test_rows_that_are_withheld_are_missed(lines: list[str], tmp_path: Path) -> None:
    """Whoever passes the file on shows only the hash of the newest row, as of a row of another workspace."""
    at = max(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "row")
    row = json.loads(lines[at])
    lines[at] = json.dumps({"kind": "hidden", "level": 0, "index": row["index"], "hash": row["leaf"]})
    refused = verified(tmp_path, lines)
    assert (refused.exit_code, refused.stderr.startswith("rows_withheld: ")) == (1, True)
    assert "14 sealed rows, and 13 are here" in refused.stderr


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


async def test_lines_that_are_missing_are_told_as_such(lines: list[str], tmp_path: Path) -> None:
    last = max(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "hidden")
    refused = verified(tmp_path, [*lines[:last], *lines[last + 1 :]])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("leaves_changed: a checkpoint signs 28 leaves, and ")
    assert "lines are missing, moved or added; export again" in refused.stderr


async def test_what_lies_hidden_is_never_less_than_nothing(lines: list[str], tmp_path: Path) -> None:
    first = next(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "row")
    refused = verified(tmp_path, lines[: first + 1], "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["hidden"]) == (1, 0)


async def test_a_key_of_another_time_is_thought_of(lines: list[str], tmp_path: Path) -> None:
    newer = new_key(tmp_path, "newer")
    other = tmp_path / "other.pub"
    other.write_text(newer.public_openssh)
    export = tmp_path / "log.jsonl"
    export.write_text("\n".join(lines) + "\n")
    refused = CliRunner().invoke(app, ["verify", str(export), "--key", str(other)])
    assert refused.exit_code == 1
    assert "may have been rotated: give all `signing_keys` that `GET /status` lists" in refused.stderr


async def test_blank_lines_count_only_where_lines_are_missed(lines: list[str], tmp_path: Path) -> None:
    assert verified(tmp_path, [*lines, "", " \r", ""]).exit_code == 0
    assert verified(tmp_path, [*lines, "", "{}"]).exit_code == 1
    between = verified(tmp_path, [*lines[:3], "", *lines[3:]])
    assert between.exit_code == 1
    assert between.stderr.startswith("malformed: line 4, after ")
    assert between.stderr.endswith(" rows, is empty\n")
