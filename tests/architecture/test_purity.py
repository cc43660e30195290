"""Rules, contracts, workflows read no clock, chance, machine or network: the sandbox passes their modules through."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONNECTS = ROOT / "workflows/client.py"
"""Connects a process to Temporal; import-linter says so, and no workflow imports it."""
WORKFLOWS = sorted({*(ROOT / "workflows").rglob("*.py")} - {CONNECTS})
RULES = sorted([*(ROOT / "models/domain").rglob("*.py"), *(ROOT / "models/contracts").rglob("*.py")])

OURS = {"models", "activities", "workflows"}
"""Who of us may import whom is import-linter's to say."""
CALCULATE = {
    *("base64", "bisect", "collections", "contextlib", "dataclasses", "datetime", "decimal", "difflib", "enum"),
    *("fnmatch", "functools", "hashlib", "itertools", "json", "math", "operator", "re", "shlex", "statistics"),
    *("typing", "unicodedata", "urllib.parse", "cryptography", "pydantic", "yaml"),
}
"""Modules that only calculate. Any other is a finding, whatever is taken from it."""
DETERMINISTIC = {"asyncio", "temporalio"}
"""What workflows have besides: the SDK, whose loop, clock and chance come from the history."""
LOOKS = {
    *("now", "utcnow", "today", "monotonic", "perf_counter", "time", "sleep"),
    *("environ", "getenv", "cwd", "home", "expanduser", "urandom", "uuid1", "uuid4", "token_bytes", "token_hex"),
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "resolve", "readlink", "stat", "exists"),
    *("is_file", "is_dir", "is_symlink", "iterdir", "glob", "rglob", "mkdir", "touch", "unlink"),
}
"""What an object offers that was handed in, or that a module made which calculates: a clock, chance, a file."""
BUILT_IN = {"open", "exec", "eval", "__import__", "breakpoint"}

_PATHS = "takes paths apart, and looks at none"
_ANSWERS = "the part of a policy that says who may answer"
ALLOWED = {
    "models/domain/command_lines.py": {"pathlib.PurePosixPath": _PATHS},
    "models/domain/law.py": {
        "posixpath.dirname": _PATHS,
        "posixpath.normpath": _PATHS,
        "sys": "for the names of the standard library's modules, which Python itself carries",
    },
    "models/domain/patches.py": {"file.is_symlink": "what a diff says of a file that it makes"},
    "models/domain/policy.py": {"self.resolve": _ANSWERS},
    "models/domain/policy_names.py": {"policy.resolve": _ANSWERS},
    "models/domain/principals.py": {"self.home": "the workspace that a principal belongs to"},
    "models/domain/repo_config.py": {"pathlib.PurePosixPath": _PATHS},
    "models/domain/repositories.py": {
        "ipaddress.IPv6Address": "reads the text of an address",
        "ipaddress.ip_address": "reads the text of an address",
        "pathlib.PurePath": _PATHS,
        "pathlib.PurePosixPath": _PATHS,
        "posixpath": _PATHS,
    },
    "workflows/stages/approval.py": {"workflow.now": "the time of the history"},
    "workflows/stages/observation.py": {"workflow.now": "the time of the history"},
}
"""What looks like a finding and is none: by file, as it is spelled there, and why."""


def findings(source: str, modules: set[str] = CALCULATE) -> Iterator[str]:
    """Name what a source should not use, as it is spelled: `os`, `datetime.now`, `open`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if not _is_of(alias.name, modules))
            case ast.ImportFrom():
                module = node.module or "."
                yield from (f"{module}.{alias.name}" for alias in node.names if not _is_of(module, modules))
            case ast.Attribute() if node.attr in LOOKS:
                yield ast.unparse(node)
            case ast.Name() if node.id in BUILT_IN:
                yield node.id


def _is_of(module: str, modules: set[str]) -> bool:
    return module in modules or module.partition(".")[0] in modules | OURS


@pytest.mark.parametrize("path", [*RULES, *WORKFLOWS], ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_code_reads_nothing_but_what_it_is_given(path: Path) -> None:
    modules = CALCULATE | DETERMINISTIC if path in WORKFLOWS else CALCULATE
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), {})
    assert set(findings(path.read_text(), modules)) == set(allowed), "mend it, or say in ALLOWED why it is none"


def test_what_is_allowed_is_still_there() -> None:
    assert set(ALLOWED) <= {str(path.relative_to(ROOT)) for path in (*RULES, *WORKFLOWS)}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import datetime; at = datetime.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime as clock; at = clock.utcnow()", "clock.utcnow"),
        ("from datetime import date; at = date.today()", "date.today"),
        ("import time", "time"),
        ("from time import monotonic", "time.monotonic"),
        ("def age(clock): return clock.monotonic()", "clock.monotonic"),
        ("import secrets", "secrets"),
        ("from random import choice", "random.choice"),
        ("from uuid import uuid4", "uuid.uuid4"),
        ("def home(machine): return machine.environ['HOME']", "machine.environ"),
        ("import os", "os"),
        ("import os.path as paths", "os.path"),
        ("from os import getenv", "os.getenv"),
        ("from pathlib import Path", "pathlib.Path"),
        ("def read(path): return path.read_text()", "path.read_text"),
        ("def real(path): return path.resolve()", "path.resolve"),
        ("look = [place.is_file for place in ()]", "place.is_file"),
        ("def has(path): return (path / 'HEAD').is_dir()", "(path / 'HEAD').is_dir"),
        ("with open('/etc/hosts') as file: pass", "open"),
        ("read = open", "open"),
        ("import subprocess", "subprocess"),
        ("from socket import socket", "socket.socket"),
        ("from urllib.request import urlopen", "urllib.request.urlopen"),
        ("import asyncio", "asyncio"),
        ("from . import sibling", "..sibling"),
        ("def later():\n    import shutil", "shutil"),
    ],
)
def test_a_bad_line_is_found(line: str, found: str) -> None:
    assert list(findings(line)) == [found]


@pytest.mark.parametrize(
    "line",
    [
        "from datetime import datetime, timedelta; day = timedelta(days=1)",
        "def later(now: datetime) -> datetime: return now + day",
        "from urllib.parse import quote",
        "from models.domain.errors import InvalidInput",
        "import re; found = re.compile('x')",
    ],
)
def test_a_good_line_is_not(line: str) -> None:
    assert list(findings(line)) == []
