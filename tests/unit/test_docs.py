"""What the documents promise is held to the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from cli.main import app
from models.domain.policy import Ask, Policy, Rule, When, parse_policy
from models.domain.repo_config import RepoConfig, parse_repo_config
from worker.dev.programs import variables

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "AGENTS.md",
        "CHANGELOG.md",
        "docs/audit.md",
        "docs/controls.md",
        "docs/governance.md",
        "docs/runbook.md",
        "docs/policy.md",
    )
]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def _commands() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for found in re.finditer(r"mission-control ((?:[a-z]+ ?)+[^`\n]*)", document.read_text().replace("\\\n", " ")):
            yield document.name, found.group(1)


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("variable", sorted(variables().values()))
def test_every_setting_is_in_the_readme(variable: str) -> None:
    assert f"`{variable}`" in (ROOT / "README.md").read_text()


def test_the_readme_s_example_of_a_repository_s_file_is_one() -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    assert set(parse_repo_config(example[1].encode()).given) == set(RepoConfig.model_fields)


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"`(MC_[A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert named <= set(variables().values())


@pytest.mark.parametrize(("document", "line"), sorted(set(_commands())))
def test_documented_commands_and_options_exist(document: str, line: str) -> None:
    command = get_command(app)
    words = line.split("#")[0].split()
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{document}: {line}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known | {"--help"}


def test_the_policy_s_document_names_what_a_policy_may_say() -> None:
    text = (ROOT / "docs/policy.md").read_text()
    words = {name for part in (Policy, Rule, When, Ask) for name in part.model_fields}
    assert {word for word in words if f"`{word}`" not in text and f"{word}:" not in text} == set()
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example
    [rule] = parse_policy("rules:\n" + example[1]).rules
    assert rule.ask is not None


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECORDS], ids=lambda path: path.name)
def test_links_and_make_targets_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    assert {name for name in re.findall(r"`make ([a-z]+)", text)} <= _targets()
    for path in re.findall(
        r"`((?:models|workflows|activities|worker|api|cli|deploy|config|docs|tests)/[\w./-]*)`", text
    ):
        assert (ROOT / path).exists(), path


CONTROLS = [row.split("|")[1:-1] for row in (ROOT / "docs/controls.md").read_text().splitlines() if "::" in row]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda row: row[0].strip())
def test_each_control_has_a_requirement_and_tests(control: list[str]) -> None:
    _, by, requirement, held = (cell.strip() for cell in control)
    assert by
    assert re.fullmatch(r"[A-Z]+-[0-9]{2}(, [A-Z]+-[0-9]{2})*", requirement)
    for test in held.split(", "):
        file, name = test.strip("`").split("::")
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_every_row_of_the_list_of_controls_names_a_test() -> None:
    rows = [row for row in (ROOT / "docs/controls.md").read_text().splitlines() if row.startswith("|")]
    assert len(CONTROLS) == len([row for row in rows if not row.startswith(("| control ", "| ---"))]) > 20


TEXTS = [path for suffix in ("md", "json", "yaml") for path in (ROOT / "docs").rglob(f"*.{suffix}")]
CLAIM = re.compile(
    r"certifi(ed|cation)|(ISO|SOC|NIST)\b.{0,20}\b(ready|compliant|conform)|complian(t|ce) with", re.IGNORECASE
)


@pytest.mark.parametrize("text", [*DOCUMENTS, *TEXTS], ids=lambda path: path.name)
def test_no_text_claims_to_meet_a_standard(text: Path) -> None:
    assert CLAIM.search(text.read_text()) is None


@pytest.mark.parametrize("claim", ["SOC 2 certified", "is ISO 27001 ready", "Certification", "NIST-compliant"])
def test_such_a_claim_would_be_found(claim: str) -> None:
    assert CLAIM.search(f"Mission Control: {claim}.")


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_decision_records_have_one_shape(record: Path) -> None:
    text = record.read_text()
    number = int(record.name[:4])
    assert text.startswith(f"# {number}. ")
    assert len(text.splitlines()) <= 50
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]
    assert re.search(r"^Status: (accepted|superseded by \d+)$", text, re.MULTILINE)


def test_decision_records_are_numbered_without_gaps() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_agents_file_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECORDS], ids=lambda path: path.name)
def test_prose_fits_the_line(document: Path) -> None:
    rows = document.read_text().splitlines()
    assert [row for row in rows if len(row) > 120 and not row.startswith(("|", " │"))] == []
