"""Environments are built once, from the base, whole or not at all, and never hold the project itself."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from activities.workbench.command import OUT, WORKSPACE, Command, CommandResult, Mount
from activities.workbench.environments import Environment, Environments, EnvironmentSpec
from activities.workbench.sandbox import Sandbox
from activities.workbench.toolchain import Toolchain
from models.domain.errors import StageFailed
from tests.fixtures.sandboxes import EVERY_KIND, sandbox_of
from tests.fixtures.waiting import until
from tests.fixtures.wheels import make_index, make_wheel

UV = next((mount.source for mount in Toolchain.detect().mounts if mount.target.endswith("/uv")), None)
SPEC = EnvironmentSpec("acme", test="python -m unittest")
PYPROJECT = """
[build-system]
requires = ["tiny-backend"]
build-backend = "tiny_backend"
[project]
name = "shop"
version = "1.0"
dependencies = ["greeting"]
[project.optional-dependencies]
test = ["shop[all]"]
all = ["probe-tool"]
"""


@dataclass
class House:
    """A cache of environments, an index in a folder, and checkouts."""

    sandbox: Sandbox
    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    printed: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        index = make_index(self.root / "index")
        self.variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}

    @property
    def environments(self) -> Environments:
        return Environments(self.root / "cache", self.sandbox, self.variables)

    @property
    def text(self) -> str:
        return self.printed.decode(errors="replace")

    def checkout(self, name: str, files: Mapping[str, str]) -> Path:
        folder = self.root / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    async def take(self, data: bytes) -> None:
        self.printed += data

    async def build(self, source: Path, spec: EnvironmentSpec = SPEC) -> Environment:
        """Build from a checkout that the set-up may also write in."""

        async def same() -> Path:
            return source

        return await self.environments.ensure(spec, source, same, self.take)

    async def run(self, environment: Environment, tree: Path, line: str) -> CommandResult:
        """Install the project of a worktree, then run a line there."""
        site, out = tree.with_suffix(".site"), tree.with_suffix(".out")
        site.mkdir(exist_ok=True)
        out.mkdir(exist_ok=True)
        installed = await self.environments.install(environment, tree, site, self.take)
        assert installed.ok, self.text
        mounts = (Mount(tree, WORKSPACE, writable=True), Mount(out, OUT, writable=True), *environment.mounts_with(site))
        self.printed.clear()
        return await self.sandbox.run(Command(line, mounts, environment.env), self.take)


@pytest.fixture(params=EVERY_KIND)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="house-") as folder:
        Path(folder).chmod(0o711)
        yield House(sandbox_of(request.param), Path(folder))


@pytest.fixture
def best(request: pytest.FixtureRequest) -> Iterator[House]:
    """Only with the best isolation there is: what is tested does not depend on it."""
    with tempfile.TemporaryDirectory(prefix="house-") as folder:
        Path(folder).chmod(0o711)
        yield House(sandbox_of("auto"), Path(folder))


def shop(word: str) -> dict[str, str]:
    return {"pyproject.toml": PYPROJECT, "src/shop.py": f"import greeting\nWHERE = {word!r}\n"}


@pytest.mark.timeout(400)
class TestPythonProject:
    async def test_each_worktree_runs_its_own_code_over_shared_dependencies(self, house: House) -> None:
        """Its own test tool pulls the project in from the index: that one must not be what is tested."""
        base, patched = house.checkout("base", shop("the base")), house.checkout("patched", shop("the patch"))
        environment = await house.build(base)
        line = 'python -c "import shop, probe_tool, greeting; print(shop.WHERE, greeting.WORD)"'
        line += "; python -c \"import importlib.metadata as m; print(m.version('shop'))\""
        for tree, word in ((base, "the base"), (patched, "the patch")):
            result = await house.run(environment, tree, line)
            assert result.ok, house.text
            assert house.text == f"{word} hello\n1.0\n"

    async def test_nothing_of_the_project_is_shared(self, best: House) -> None:
        environment = await best.build(best.checkout("base", shop("the base")))
        found = {path.name.partition("-")[0] for path in environment.path.rglob("*.dist-info")}
        installers = {"pip", "setuptools"}
        assert found - installers == {"build_helper", "greeting", "probe_tool", "tiny_backend"}
        assert not (environment.path / ".workshop").exists()

    async def test_what_only_the_build_knows_is_asked_of_the_build(self, best: House) -> None:
        project = PYPROJECT.replace('dependencies = ["greeting"]', 'dynamic = ["dependencies"]')
        project = project.partition("[project.optional")[0]
        tree = best.checkout("base", shop("the base") | {"pyproject.toml": project})
        result = await best.run(await best.build(tree), tree, 'python -c "import probe_tool, shop; print(shop.WHERE)"')
        assert result.ok, best.text
        assert best.text == "the base\n"

    async def test_requirements_and_groups_are_installed(self, best: House) -> None:
        files = {
            "requirements-dev.txt": "greeting\n",
            "requirements-docs.txt": "no-such-thing\n",
            "pyproject.toml": '[dependency-groups]\ntest = [{include-group = "more"}]\nmore = ["build-helper"]\n',
            "app.py": "",
        }
        tree = best.checkout("base", files)
        assert (await best.run(await best.build(tree), tree, 'python -c "import greeting, build_helper"')).ok, best.text

    @pytest.mark.skipif(not UV, reason="uv is not at hand")
    async def test_a_lock_decides_over_what_it_locks(self, best: House) -> None:
        """The lock was made when there was only version 1.0 of the library; now there is a newer one."""
        tree = best.checkout("base", shop("the base"))
        lock(tree)
        make_wheel(best.root / "index", "greeting", {"greeting.py": "WORD = 'goodbye'\n"}, version="2.0")
        await best.run(await best.build(tree), tree, 'python -c "import greeting; print(greeting.WORD)"')
        assert best.text == "hello\n"

    async def test_pytest_comes_with_a_command_that_calls_it(self, best: House) -> None:
        with pytest.raises(StageFailed, match="exit code 1"):
            await best.build(best.checkout("base", {"test_app.py": ""}), EnvironmentSpec("acme", test="pytest -q"))
        assert "pytest" in best.text

    async def test_a_project_that_needs_nothing_needs_no_index(self, house: House) -> None:
        shutil.rmtree(house.root / "index")
        del house.variables["PIP_FIND_LINKS"]
        tests = "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n"
        tree = house.checkout("base", {"tests/test_it.py": tests})
        result = await house.run(await house.build(tree), tree, "python -m unittest discover tests")
        assert result.ok, house.text


@pytest.mark.timeout(400)
class TestOwnSetup:
    async def test_runs_in_the_base_with_the_environment_writable(self, house: House) -> None:
        tree = house.checkout("base", {"README": "hello\n"})
        environment = await house.build(tree, replace(SPEC, setup="cp README /env/copy"))
        assert (environment.path / "copy").read_text() == "hello\n"
        assert environment.path.stat().st_uid == os.geteuid()

    async def test_is_read_only_ever_after(self, best: House) -> None:
        environment = await best.build(best.checkout("base", {"README": ""}), replace(SPEC, setup="echo > /env/made"))
        result = await best.run(environment, best.root / "base", "rm /env/made || touch /env/more")
        assert not result.ok
        assert "Read-only file system" in best.text

    async def test_finds_pip_and_may_install_the_project_which_is_taken_out(self, best: House) -> None:
        tree = best.checkout("base", shop("the base"))
        environment = await best.build(tree, replace(SPEC, setup="pip install . && touch /env/done"))
        assert (environment.path / "done").exists()
        assert not list(environment.path.rglob("shop.py"))
        patched = best.checkout("patched", shop("the patch"))
        await best.run(environment, patched, 'python -c "import shop; print(shop.WHERE)"')
        assert best.text == "the patch\n"

    async def test_says_how_it_failed_and_leaves_nothing_behind(self, house: House) -> None:
        tree = house.checkout("base", {"README": ""})
        with pytest.raises(StageFailed, match="ended with exit code 3") as failed:
            await house.build(tree, replace(SPEC, setup="echo partly > /env/x; echo no luck; exit 3"))
        assert failed.value.code == "environment_failed"
        assert house.text == "no luck\n"
        environment = await house.build(tree, replace(SPEC, setup="ls /env"))
        assert not environment.from_cache

    async def test_is_stopped_at_its_limit(self, best: House) -> None:
        with pytest.raises(StageFailed, match="was stopped: timeout"):
            await best.build(best.checkout("base", {"README": ""}), replace(SPEC, setup="sleep 60", seconds=0.3))


class TestSecrets:
    async def test_only_what_concerns_indexes_is_passed_in(self, best: House) -> None:
        best.variables |= {"MC_API_KEY": "very-secret", "PIP_TARGET": "/elsewhere", "https_proxy": "http://proxy:1"}
        tree = best.checkout("base", {"README": ""})
        await best.build(tree, replace(SPEC, setup="env; ls $PIP_FIND_LINKS"))
        assert "very-secret" not in best.text
        assert "PIP_TARGET" not in best.text
        assert "https_proxy=http://proxy:1\n" in best.text
        assert "greeting-1.0-py3-none-any.whl\n" in best.text

    async def test_credentials_are_not_shown(self, best: House) -> None:
        best.variables["PIP_INDEX_URL"] = "https://bob:s3cr%21t@index.example/simple"
        line = "env; echo other https://al:pw@b.example; echo s3cr!t s3cr%21t; printf 'cut https://x:y@z.example'"
        await best.build(best.checkout("base", {"README": ""}), replace(SPEC, setup=line))
        assert not any(secret in best.text for secret in ("s3cr!t", "s3cr%21t", "bob", "al:pw", "x:y"))
        assert "PIP_INDEX_URL=https://***@index.example/simple\n" in best.text
        assert best.text.endswith("cut https://***@z.example")


class TestCache:
    async def test_gives_the_same_environment_again(self, house: House) -> None:
        tree = house.checkout("base", {"README": ""})
        spec = replace(SPEC, setup="head -c 8 /dev/urandom > /env/random")
        first = await house.build(tree, spec)
        second = await house.build(tree, spec)
        assert (first.from_cache, second.from_cache) == (False, True)
        assert replace(second, from_cache=False) == first

    async def test_asks_what_decides_about_it(self, best: House) -> None:
        tree = best.checkout("base", {"README": ""})
        spec = replace(SPEC, setup="true")
        keys = [(await best.build(tree, spec)).key]
        keys.append((await best.build(tree, replace(spec, workspace_id="other"))).key)
        keys.append((await best.build(tree, replace(spec, setup="true; true"))).key)
        (tree / "README").write_text("no lock file")
        assert (await best.build(tree, spec)).key == keys[0]
        (tree / "package-lock.json").write_text("{}")
        keys.append((await best.build(tree, spec)).key)
        assert len(set(keys)) == 4

    async def test_builds_once_for_all_who_ask_at_once(self, best: House) -> None:
        tree = best.checkout("base", {"README": ""})
        spec = replace(SPEC, setup="echo built; sleep 0.3")
        built = await asyncio.gather(*(best.build(tree, spec) for _ in range(4)))
        assert sorted(each.from_cache for each in built) == [False, True, True, True]
        assert best.text == "built\n"

    async def test_begins_anew_after_a_builder_that_was_killed(self, best: House) -> None:
        tree = best.checkout("base", {"README": ""})
        line = "test -e /workspace/again || { touch /env/half /workspace/again; sleep 600; }; ls /env"
        program = (
            "import asyncio, sys\nfrom pathlib import Path\n"
            "from activities.workbench.environments import Environments, EnvironmentSpec\n"
            "from activities.workbench.sandbox import Sandbox\n"
            "async def ignore(data): pass\n"
            "async def same(): return root / 'base'\n"
            "root, line = Path(sys.argv[1]), sys.argv[2]\n"
            "environments = Environments(root / 'cache', Sandbox.detect('auto'), {})\n"
            "spec = EnvironmentSpec('acme', line, 'python -m unittest')\n"
            "asyncio.run(environments.ensure(spec, root / 'base', same, ignore))\n"
        )
        builder = psutil.Popen([sys.executable, "-c", program, str(best.root), line])
        await until((tree / "again").exists)
        builder.kill()
        builder.wait()
        environment = await best.build(tree, replace(SPEC, setup=line))
        assert not environment.from_cache
        assert list(environment.path.iterdir()) == []

    async def test_deletes_what_was_used_longest_ago(self, best: House) -> None:
        tree = best.checkout("base", {"README": ""})
        made = [await best.build(tree, replace(SPEC, setup=f"head -c 1000000 /dev/zero > /env/{n}")) for n in range(3)]
        for age, environment in enumerate(reversed(made)):
            ready = environment.path.parent / "ready.json"
            os.utime(ready, (ready.stat().st_mtime - 100 * age,) * 2)
        await best.environments.prune(max_bytes=2_500_000, idle_seconds=50)
        assert [environment.path.exists() for environment in made] == [False, True, True]
        await best.environments.prune(max_bytes=0, idle_seconds=50)
        assert [environment.path.exists() for environment in made] == [False, False, True]

    async def test_one_that_is_deleted_only_in_part_is_built_again(self, best: House) -> None:
        """The deletion is broken off as by a kill: after the file that says what is whole, if that went first."""
        tree = best.checkout("base", {"README": ""})
        spec = replace(SPEC, setup="for n in $(seq 10000); do : > /env/file-$n; done")
        environment = await best.build(tree, spec)
        deleting = asyncio.ensure_future(best.environments.prune(max_bytes=0, idle_seconds=0))
        while len(os.listdir(environment.path)) == 10_000:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        deleting.cancel()
        await asyncio.gather(deleting, return_exceptions=True)
        again = await best.build(tree, spec)
        assert not again.from_cache
        assert len(os.listdir(again.path)) == 10_000

    async def test_is_deleted_by_many_at_once(self, best: House) -> None:
        tree = best.checkout("base", {"README": ""})
        made = [await best.build(tree, replace(SPEC, setup=f": > /env/{n}")) for n in range(3)]
        await asyncio.gather(*(best.environments.prune(max_bytes=0, idle_seconds=0) for _ in range(4)))
        assert not any(environment.path.exists() for environment in made)


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
@pytest.mark.timeout(400)
class TestGoProject:
    async def test_is_tested_offline_with_modules_of_the_base(self, best: House) -> None:
        proxy = best.root / "proxy"
        make_module(proxy, "example.com/greeting", "v1.0.0", 'package greeting\n\nconst Word = "hello"\n')
        best.variables |= {"GOPROXY": f"file://{proxy}", "GOSUMDB": "off"}
        files = {
            "go.mod": "module example.com/shop\n\ngo 1.20\n\nrequire example.com/greeting v1.0.0\n",
            "shop_test.go": 'package shop\n\nimport (\n\t"testing"\n\n\t"example.com/greeting"\n)\n\n'
            'func TestWord(t *testing.T) {\n\tif greeting.Word != "hello" {\n\t\tt.Fatal()\n\t}\n}\n',
        }
        tree = best.checkout("base", files)
        environment = await best.build(tree, replace(SPEC, setup="go mod tidy"))
        result = await best.run(environment, tree, "go test -v ./...")
        assert result.ok, best.text
        assert "--- PASS: TestWord" in best.text
        assert "downloading" not in best.text


def lock(project: Path) -> None:
    """Write the project's `uv.lock` from the folder of wheels."""
    where = ["--no-index", "--find-links", "../index", "--python", sys.executable]
    subprocess.run([str(UV), "lock", "--quiet", *where], cwd=project, check=True)


def make_module(proxy: Path, name: str, version: str, source: str) -> None:
    """Put a module into a folder that serves as `GOPROXY`."""
    folder = proxy / name / "@v"
    folder.mkdir(parents=True)
    (folder / "list").write_text(f"{version}\n")
    (folder / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
    (folder / f"{version}.mod").write_text(f"module {name}\n\ngo 1.20\n")
    with zipfile.ZipFile(folder / f"{version}.zip", "w") as content:
        content.writestr(f"{name}@{version}/go.mod", f"module {name}\n\ngo 1.20\n")
        content.writestr(f"{name}@{version}/greeting.go", source)
