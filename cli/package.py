"""A mission as `POST /missions` takes it, from a YAML file and from options."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the options of `mission create` say; None where an option was not given."""

    repo: str | None = None
    branch: str | None = None
    severity: str | None = None
    subsystem: str | None = None
    symptoms: list[str] | None = None
    must_pass: list[str] | None = None
    patches: list[str] | None = None
    refs: list[str] | None = None
    approve_needed: bool = False
    window: float | None = None


def from_file(path: Path) -> Json:
    """Read a mission file.

    Raises:
        typer.BadParameter: it is not YAML, not one mapping, or says what no request can, such as `.nan` or a date.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise typer.BadParameter(f"{path} cannot be read as YAML: {error}", param_hint="--file") from None
    if not isinstance(body, dict):
        raise typer.BadParameter(f"{path} must hold one mapping, such as `severity: high`", param_hint="--file")
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} says what JSON cannot: {error}", param_hint="--file") from None
    return body


def merged(body: Json, given: Options) -> Json:
    """The request: the file's keys, replaced by what options say, and with the defaults of a mission filed by hand."""
    flat = {
        "repository": _place(given.repo),
        "workspace_branch": given.branch,
        "severity": given.severity,
        "subsystem_id": given.subsystem,
        "symptoms": [{"description": text} for text in given.symptoms or []],
        "requires_governance_approval": given.approve_needed,
        "patch_candidates": _candidates(given),
    }
    request = body | {name: value for name, value in flat.items() if value}
    criteria = {"must_pass_tests": given.must_pass, "observation_window_minutes": given.window}
    said = {key: value for key, value in criteria.items() if value is not None}
    if said:
        request["acceptance_criteria"] = (request.get("acceptance_criteria") or {}) | said
    return {"severity": "medium", "subsystem_id": _name(request)} | request


def _place(repo: str | None) -> str | None:
    """A folder of this machine in full; names, ids and URLs as they are."""
    if repo is None or not (repo.startswith((".", "~")) or "/" in repo):
        return repo
    folder = Path(repo).expanduser()
    return str(folder.resolve()) if folder.is_dir() else repo


def _name(request: Json) -> str:
    place = str(request.get("repository") or request.get("workspace_repo_path") or "code")
    return place.rstrip("/").removesuffix(".git").rpartition("/")[2]


def _candidates(given: Options) -> list[Json]:
    return [{"diff": read_patch(name)} for name in given.patches or []] + [{"ref": ref} for ref in given.refs or []]


def read_patch(name: str) -> str:
    """Read a patch's file, or stdin for `-`; raises `typer.BadParameter` where that is no text."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
        return data.decode()
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}", param_hint="--patch") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(
            f"{name} is not UTF-8; push the change and name it with --ref", param_hint="--patch"
        ) from None
