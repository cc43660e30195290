"""How an environment is set up: as its repository says, else as the files of the base commit suggest."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from activities.workbench import python_setup
from activities.workbench.command import ENV, SITE, Mount
from activities.workbench.toolchain import ROOT, versions

SCRIPT = Mount(Path(python_setup.__file__), f"{ROOT}/python_setup.py")

_LOCKS = (
    *("pyproject.toml", "setup.py", "setup.cfg", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile*", ".python-version"),
    *("*requirements*.txt", "requirements/*.txt", "constraints*.txt", "go.mod", "go.sum", "go.work", "go.work.sum"),
    *("package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "Cargo.toml", "Cargo.lock", "Gemfile*"),
)
"""The files that decide what is installed: with another content it is another environment."""

_GO_DOWNLOAD = "{ test -d vendor || go mod download; }"
_GO_WARM = "{ go test -run '^$' ./... >/dev/null 2>&1 || true; }"
_GO_FLAGS = "-buildvcs=false"


@dataclass(frozen=True)
class Setup:
    """What is run once per environment (`line`), once per worktree (`install`), and with which variables."""

    line: str = "true"
    install: str = ""
    build_env: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def facts(self, source: Path) -> dict[str, object]:
        """All that the built environment depends on, for its key."""
        script = _digest(SCRIPT.source)
        return {"line": self.line, "script": script, "locks": dict(_locks(source)), "toolchain": versions()}


def setup_of(source: Path, own: str | None, test: str | None) -> Setup:
    """Decide how to set up the checkout `source`: `own` is the repository's command, `test` what will be run in it."""
    parts = []
    if _is_python(source):
        parts.append(_python(own, test))
    if (source / "go.mod").is_file():
        parts.append(_go(own if not parts else None))
    if not parts:
        return Setup(line=own or "true")
    return Setup(
        line=" && ".join(part.line for part in parts),
        install=" && ".join(part.install for part in parts),
        build_env={name: value for part in parts for name, value in part.build_env.items()},
        env={name: value for part in parts for name, value in part.env.items()},
    )


def _python(own: str | None, test: str | None) -> Setup:
    tools = ["--tool=pytest"] if test is None or "pytest" in test else []
    given = [f"--command={own}"] if own else []
    variables = {"VIRTUAL_ENV": ENV, "PROJECT_SITE": SITE}
    script = f"python3 -I {SCRIPT.target}"
    return Setup(
        line=f"{script} build --env {ENV} {shlex.join([*tools, *given])}".strip(),
        install=f"{script} install --env {ENV} --site {SITE}",
        env=variables,
    )


def _go(own: str | None) -> Setup:
    """Modules and compiled packages are kept; the cache of the latter must be writable, so each worktree has a copy."""
    modules = {"GOMODCACHE": f"{ENV}/gomod"}
    return Setup(
        line=f"{own or _GO_DOWNLOAD} && {_GO_WARM}",
        install=f"rm -rf {SITE}/gocache && cp -r --reflink=auto {ENV}/gocache {SITE}/gocache",
        build_env={**modules, "GOCACHE": f"{ENV}/gocache", "GOFLAGS": f"{_GO_FLAGS} -modcacherw"},
        env={**modules, "GOCACHE": f"{SITE}/gocache", "GOFLAGS": _GO_FLAGS, "GOPROXY": "off"},
    )


def _is_python(source: Path) -> bool:
    patterns = ("pyproject.toml", "setup.py", "setup.cfg", "*requirements*.txt", "*.py", "*/*.py")
    return any(file.is_file() for pattern in patterns for file in source.glob(pattern))


def _locks(source: Path) -> Iterator[tuple[str, str]]:
    for pattern in _LOCKS:
        for file in sorted(source.glob(pattern)):
            # Links could lead out of the checkout, and other things could block for ever.
            if file.is_file() and not file.is_symlink():
                yield str(file.relative_to(source)), _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
