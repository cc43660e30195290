"""Builds a Python project's environment and installs the project for one worktree; runs alone inside the sandbox.

The environment (`/env`) is shared by all worktrees of a base commit, so it holds what the project needs and never the
project itself: a worktree would be tested with another one's code. The project is installed from each worktree into a
folder of its own (`/site`), which the environment's Python looks into at every start.

Only the standard library is at hand. Nothing of the project is trusted; what is wrong with it ends in an error.
"""

import argparse
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

TEST_NAMES = ("test", "tests", "testing", "dev")
"""Extras and dependency groups that hold what tests need, as projects usually call them."""

_REQUIREMENTS = re.compile(
    r"(?:(?:tests?|testing|dev)[-_.])?requirements(?:[-_.](?:tests?|testing|dev|base))?\.txt"
    r"|requirements/(?:base|tests?|testing|dev)\.txt"
)
_DISTRIBUTION = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?")
_HOOK = "import os, site; site.addsitedir(os.environ.get('PROJECT_SITE', '/site'))\n"
_ASK_BACKEND = """
import importlib, json, sys
answer, name, path = sys.argv[1:]
sys.path[:0] = json.loads(path)
module, _, attributes = name.partition(":")
backend = importlib.import_module(module)
for attribute in filter(None, attributes.split(".")):
    backend = getattr(backend, attribute)
ask_for_wheel = getattr(backend, "get_requires_for_build_wheel", list)
ask = getattr(backend, "get_requires_for_build_editable", ask_for_wheel)
open(answer, "w").write(json.dumps(ask()))
"""


class Project:
    """What a project says of itself in its files, read without running any of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """`pyproject.toml`, empty if there is none."""
        file = self.root / "pyproject.toml"
        return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    @property
    def metadata(self) -> dict[str, Any]:
        """The `[project]` table."""
        return dict(self.pyproject.get("project", {}))

    @property
    def name(self) -> str:
        """The distribution's name in its normal form; empty where only running the build would tell."""
        return _normal(str(self.metadata.get("name", "")))

    @property
    def installable(self) -> bool:
        """Whether there is anything to install, or only sources to run."""
        if self.metadata or "build-system" in self.pyproject or (self.root / "setup.py").is_file():
            return True
        config = configparser.ConfigParser(interpolation=None)
        config.read(self.root / "setup.cfg", encoding="utf-8")
        return config.has_section("metadata")

    @property
    def backend(self) -> tuple[str, list[str], list[str]]:
        """The build backend, where in the tree to look for it, and what it requires."""
        system = self.pyproject.get("build-system", {})
        requires = system.get("requires", ["setuptools", "wheel"])
        return system.get("build-backend", "setuptools.build_meta:__legacy__"), system.get("backend-path", []), requires

    @property
    def is_static(self) -> bool:
        """Whether its dependencies can be read; else they are known only to its build."""
        computed = {"dependencies", "optional-dependencies"} & set(self.metadata.get("dynamic", []))
        return bool(self.name) and not computed

    def dependencies(self) -> Iterator[str]:
        """What it needs to run and to be tested, as requirements. An extra that names the project's own is followed."""
        extras = self.metadata.get("optional-dependencies", {})
        pending = [*self.metadata.get("dependencies", [])]
        pending += [need for name in TEST_NAMES for need in extras.get(name, [])]
        followed: set[str] = set(TEST_NAMES)
        while pending:
            need = pending.pop()
            match = _DISTRIBUTION.match(need)
            if match is None or _normal(match[1]) != self.name:
                yield need
                continue
            new = {extra.strip() for extra in (match[2] or "").split(",")} - followed
            followed |= new
            pending += [more for extra in new for more in extras.get(extra, [])]

    def grouped(self) -> Iterator[str]:
        """What its dependency groups for tests hold."""
        groups = self.pyproject.get("dependency-groups", {})
        pending = [name for name in TEST_NAMES if name in groups]
        for name in pending:
            for need in groups.get(name, []):
                if isinstance(need, str):
                    yield need
                elif need.get("include-group") not in pending:
                    pending.append(need["include-group"])

    def requirement_files(self) -> list[Path]:
        """The requirements files that tests usually need."""
        files = (*self.root.glob("*.txt"), *self.root.glob("requirements/*.txt"))
        return sorted(file for file in files if _REQUIREMENTS.fullmatch(str(file.relative_to(self.root))))


class Environment:
    """The virtual environment at `path`, filled by uv where it is at hand, else by pip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin/python"
        # The toolchain's own: a project may bring another with it, and have it before us on the path.
        others = [place for place in os.get_exec_path() if not Path(place).is_relative_to(path)]
        self.uv = shutil.which("uv", path=os.pathsep.join(others))

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return self.path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

    @property
    def workshop(self) -> Path:
        """Holds caches while it is built: on the same file system, so that files are linked and not copied."""
        return self.path / ".workshop"

    def create(self, *, with_pip: bool) -> None:
        """Make it, empty."""
        say(f"making an environment of Python {sys.version.split()[0]}")
        venv.create(self.path, symlinks=True, with_pip=with_pip)
        for name in ("tmp", "uv", "pip"):
            (self.workshop / name).mkdir(parents=True)

    def install(self, arguments: Sequence[str]) -> None:
        """Install what an installer takes as arguments."""
        self._pip("install", *arguments)

    def uninstall(self, names: Sequence[str]) -> None:
        """Take distributions out again."""
        self._pip("uninstall", *([] if self.uv else ["--yes"]), *names)

    def install_editable(self, root: Path, site: Path) -> None:
        """Install a project's worktree into `site`, with what is here and nothing else."""
        alone = ["--offline"] if self.uv else ["--no-index"]
        self._pip("install", "--target", str(site), "--no-deps", "--no-build-isolation", *alone, "-e", str(root))

    def _pip(self, verb: str, *arguments: str) -> None:
        start = [str(self.python), "-m", "pip", verb]
        if self.uv:
            start = [self.uv, "pip", verb, "--python", str(self.python)]
            # uv has no variable for what pip calls PIP_NO_INDEX.
            start += ["--no-index"] if verb == "install" and "PIP_NO_INDEX" in os.environ else []
        run([*start, *arguments], self._variables())

    def _variables(self) -> dict[str, str]:
        # Compiled now, for it is read-only later: else every run would compile all it imports.
        shared = {"UV_LINK_MODE": "copy", "UV_COMPILE_BYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if not self.workshop.exists():
            return shared
        places = {"TMPDIR": "tmp", "UV_CACHE_DIR": "uv", "PIP_CACHE_DIR": "pip"}
        return (
            shared | {"UV_LINK_MODE": "hardlink"} | {name: str(self.workshop / place) for name, place in places.items()}
        )


def build(project: Project, environment: Environment, tools: Sequence[str], command: str | None) -> None:
    """Make an environment that holds everything but the project."""
    anything = tools or project.installable or project.requirement_files() or list(project.grouped())
    environment.create(with_pip=command is not None or bool(anything and not environment.uv))
    if command is not None:
        run(["/bin/sh", "-c", command], {"VIRTUAL_ENV": str(environment.path)})
    elif needs := [*_needs(project, environment), *tools]:
        environment.install(needs)
    if project.installable:
        _install_backend(project, environment)
    _take_out(project, environment)
    (environment.packages / "project_site.pth").write_text(_HOOK, encoding="utf-8")
    shutil.rmtree(environment.workshop)


def install(project: Project, environment: Environment, site: Path) -> None:
    """Install the project of this worktree, and only here."""
    for left in site.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    if not project.installable:
        say("nothing to install: the project is run from its sources")
        return
    environment.install_editable(project.root, site)


def _needs(project: Project, environment: Environment) -> list[str]:
    """Arguments that install what the project needs, by its lock where uv made one."""
    files = [argument for file in project.requirement_files() for argument in ("-r", str(file))]
    if environment.uv and (project.root / "uv.lock").is_file():
        return [*files, "-r", str(_locked(project, environment))]
    if project.is_static:
        return [*files, *project.dependencies(), *project.grouped()]
    whole = [f"{project.root}[{','.join(TEST_NAMES)}]"] if project.installable else []
    return [*files, *whole, *project.grouped()]


def _locked(project: Project, environment: Environment) -> Path:
    """Write down what `uv.lock` pins for running and testing the project."""
    file = environment.workshop / "locked.txt"
    extras = [name for name in TEST_NAMES if name in project.metadata.get("optional-dependencies", {})]
    groups = [name for name in TEST_NAMES if name in project.pyproject.get("dependency-groups", {})]
    chosen = [*(f"--extra={name}" for name in extras), *(f"--group={name}" for name in groups)]
    quiet = ["--quiet", "--frozen", "--no-hashes", "--no-emit-workspace"]
    run([str(environment.uv), "export", *quiet, *chosen, "--python", str(environment.python), "-o", str(file)], {})
    return file


def _install_backend(project: Project, environment: Environment) -> None:
    """Install what builds the project: each worktree builds it without network and without isolation."""
    name, path, requires = project.backend
    if requires:
        environment.install(requires)
    answer, ask = environment.workshop / "needs.json", environment.workshop / "ask_backend.py"
    ask.write_text(_ASK_BACKEND, encoding="utf-8")
    run([str(environment.python), str(ask), str(answer), name, json.dumps(path)], {})
    if more := json.loads(answer.read_text(encoding="utf-8")):
        environment.install(more)


def _take_out(project: Project, environment: Environment) -> None:
    """Remove the project, however it came in: by a requirements file, a set-up command, or what tests it needs."""
    names = {project.name} if project.name else set()
    for origin in environment.packages.glob("*.dist-info/direct_url.json"):
        if json.loads(origin.read_text(encoding="utf-8")).get("url", "").startswith(project.root.as_uri()):
            names.add(_normal(origin.parent.name.split("-")[0]))
    present = {_normal(info.name.split("-")[0]) for info in environment.packages.glob("*.dist-info")}
    if found := sorted(names & present):
        environment.uninstall(found)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(command: Sequence[str], variables: dict[str, str]) -> None:
    """Show a command and run it; its failure is ours."""
    say(f"+ {shlex.join(command)[:500]}")
    code = subprocess.run(command, env=os.environ | variables, check=False).returncode
    if code:
        raise SystemExit(f"that failed with exit code {code}")


def say(text: str) -> None:
    """Add a line to the log, in its place between the commands' own."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the arguments; the project is the folder we are in."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["build", "install"])
    parser.add_argument("--env", type=Path, required=True)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--tool", action="append", default=[])
    parser.add_argument("--command")
    asked = parser.parse_args()
    project, environment = Project(Path.cwd()), Environment(asked.env)
    if asked.verb == "build":
        build(project, environment, asked.tool, asked.command)
    else:
        install(project, environment, asked.site)


if __name__ == "__main__":
    main()
