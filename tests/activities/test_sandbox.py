"""What an honest command finds in a sandbox, and what its caller gets back."""

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from activities.workbench.command import WORKSPACE, Mount
from models.domain.errors import InvalidInput, WorkbenchLost
from tests.fixtures.sandboxes import EVERY_KIND, KINDS_THAT_HIDE, TIGHT, Bench, bench, sandbox_of
from tests.fixtures.waiting import until

NOBODY_SPECIAL = range(60_928, 61_184)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take a program away from a process of its own")


@pytest.fixture(params=EVERY_KIND)
def anywhere(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


@pytest.fixture(params=KINDS_THAT_HIDE)
def isolated(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


class TestResult:
    async def test_says_how_it_ended(self, anywhere: Bench) -> None:
        result = await anywhere.run("echo out; echo err >&2; exit 3")
        assert (result.exit_code, result.stopped, result.ok) == (3, None, False)
        assert anywhere.text == "out\nerr\n"
        assert result.isolation is anywhere.sandbox.isolation
        assert 0 < result.seconds < TIGHT.seconds

    async def test_is_ok_only_for_exit_code_0(self, anywhere: Bench) -> None:
        assert (await anywhere.run("true")).ok

    async def test_counts_a_death_by_signal_as_a_shell_does(self, anywhere: Bench) -> None:
        assert (await anywhere.run("kill -SEGV $$")).exit_code == 128 + 11

    async def test_knows_how_much_memory_it_took(self, anywhere: Bench) -> None:
        result = await anywhere.run("python3 -c 'import time; held = bytearray(80 << 20); time.sleep(0.5)'")
        assert 80 << 20 <= result.peak_memory < TIGHT.memory

    async def test_ends_with_the_output_all_there(self, anywhere: Bench) -> None:
        result = await anywhere.run("seq 200000")
        assert result.ok
        assert anywhere.text.splitlines() == [str(number) for number in range(1, 200001)]


class TestWhatItSees:
    async def test_has_a_clean_environment(self, anywhere: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OF_THE_WORKER", "1")
        await anywhere.run("env", env={"GIVEN": 'it\'s "quoted" $HOME\nand more'})
        names = {line.partition("=")[0] for line in anywhere.text.splitlines() if "=" in line}
        by_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
        in_place = set() if anywhere.hides else {"TMPDIR", "MISSION_CONTROL_SLOT"}
        assert names - by_the_shell - in_place == {"PATH", "HOME", "LANG", "TERM", "GIVEN"}
        assert 'GIVEN=it\'s "quoted" $HOME\nand more\n' in anywhere.text

    async def test_calls_its_folders_by_fixed_names(self, anywhere: Bench) -> None:
        tool = anywhere.root / "env"
        tool.mkdir()
        (tool / "answer").write_text("42\n")
        mounts = (*anywhere.command("").mounts, Mount(tool, "/env"))
        await anywhere.run("pwd; cat /env/answer; echo report > /out/report; echo $HOME; cd sub 2>&1", mounts=mounts)
        assert anywhere.text.splitlines()[:3] == [WORKSPACE, "42", "/tmp"]
        assert (anywhere.out / "report").read_text() == "report\n"
        assert str(anywhere.root) not in anywhere.text

    async def test_begins_where_it_is_told(self, anywhere: Bench) -> None:
        (anywhere.workspace / "a b").mkdir()
        await anywhere.run("pwd", cwd="/workspace/a b")
        assert anywhere.text == "/workspace/a b\n"

    async def test_is_a_user_of_no_rights(self, isolated: Bench) -> None:
        await isolated.run(
            "id -u; id -un; python3 -c 'import getpass; print(getpass.getuser())'; grep CapEff /proc/self/status"
        )
        uid, *rest = isolated.text.split()
        assert int(uid) in NOBODY_SPECIAL
        assert rest == ["sandbox", "sandbox", "CapEff:", "0000000000000000"]

    async def test_finds_python_with_its_whole_library(self, anywhere: Bench) -> None:
        result = await anywhere.run(
            "python3 -m venv --without-pip venv && venv/bin/python -c 'import sqlite3, ssl, ctypes'"
        )
        assert result.ok, anywhere.text

    async def test_may_listen_on_a_port_of_its_own(self, isolated: Bench) -> None:
        program = (
            'import socket; here = socket.create_server(("localhost", 0)); '
            'socket.create_connection(here.getsockname()).close(); print("heard")'
        )
        await isolated.run(f"python3 -c '{program}'")
        assert isolated.text == "heard\n"

    async def test_may_use_semaphores_and_terminals(self, isolated: Bench) -> None:
        program = 'import multiprocessing, os; multiprocessing.Lock(); os.openpty(); print("made")'
        await isolated.run(f"python3 -c '{program}'")
        assert isolated.text == "made\n"

    async def test_reads_the_history_but_does_not_write_it(self, isolated: Bench) -> None:
        await isolated.run("git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first")
        result = await isolated.run("git status && git log --format=%s && ! git commit --allow-empty -m second")
        assert result.ok, isolated.text
        assert "first\n" in isolated.text

    async def test_has_names_and_addresses_only_with_the_network(self, isolated: Bench) -> None:
        line = "ls /etc/resolv.conf 2>/dev/null; tail -n +3 /proc/net/dev | wc -l"
        await isolated.run(line)
        await isolated.run(line, network=True)
        without, *rest = isolated.text.split()
        assert without == "1"
        assert rest[0] == "/etc/resolv.conf"


class TestItsFolders:
    async def test_leaves_what_it_wrote_to_us(self, anywhere: Bench) -> None:
        await anywhere.run("mkdir -p made/deep; touch made/deep/file; chmod 700 made")
        mine = os.geteuid()
        assert {path.lstat().st_uid for path in anywhere.root.rglob("*")} == {mine}

    async def test_two_at_once_do_not_share_a_user(self, anywhere: Bench) -> None:
        if not anywhere.hides and not anywhere.as_root:
            pytest.skip("without isolation a normal user's commands all are that user")
        with bench(anywhere.sandbox.isolation.value) as other:
            rendezvous = "until test -e go; do :; done; id -u"
            both = [asyncio.create_task(each.run(f"touch here; {rendezvous}")) for each in (anywhere, other)]
            await until(lambda: all((each.workspace / "here").exists() for each in (anywhere, other)))
            for each in (anywhere, other):
                (each.workspace / "go").touch()
            assert all(result.ok for result in await asyncio.gather(*both))
        assert anywhere.text != other.text


class TestOutput:
    async def test_comes_while_it_runs(self, anywhere: Bench) -> None:
        seen = asyncio.Event()

        async def answer(data: bytes) -> None:
            if b"ready" in data:
                seen.set()
                (anywhere.workspace / "go").touch()

        line = "printf ready; until test -e go; do :; done"
        assert (await anywhere.sandbox.run(anywhere.command(line), answer)).ok
        assert seen.is_set()

    async def test_waits_for_a_slow_reader(self, anywhere: Bench) -> None:
        """Pipes and buffers hold far less than what is printed: it cannot have gone on while nobody took anything."""
        went_on: list[bool] = []

        async def slow(data: bytes) -> None:
            went_on.append((anywhere.out / "printed").exists())
            await asyncio.sleep(0)

        line = "head -c 4000000 /dev/zero; touch /out/printed"
        assert (await anywhere.sandbox.run(anywhere.command(line), slow)).ok
        assert went_on[0] is False

    async def test_an_error_of_its_reader_ends_the_command(self, anywhere: Bench) -> None:
        async def fail(data: bytes) -> None:
            raise ConnectionError("the store is gone")

        with pytest.raises(ConnectionError, match="store is gone"):
            await anywhere.sandbox.run(anywhere.command("echo hello; sleep 600"), fail)
        assert anywhere.survivors() == []


class TestRefusals:
    async def test_a_folder_that_is_gone(self, anywhere: Bench) -> None:
        with pytest.raises(WorkbenchLost, match="/env is gone"):
            await anywhere.run("true", mounts=(Mount(anywhere.root / "missing", "/env"),))

    @pytest.mark.parametrize("change", [{"env": {"A B": "1"}}, {"env": {"A": "\0"}}, {"line": "\0"}, {"cwd": "\0"}])
    async def test_what_no_shell_takes(self, anywhere: Bench, change: dict[str, object]) -> None:
        with pytest.raises(InvalidInput):
            await anywhere.sandbox.run(replace(anywhere.command("true"), **change), anywhere.take)  # type: ignore[arg-type]

    async def test_a_folder_it_may_not_enter_is_its_own_failure(self, anywhere: Bench) -> None:
        result = await anywhere.run("true", cwd="/workspace/missing")
        assert (result.exit_code, result.stopped) == (126, None)


class TestDetection:
    def test_takes_the_best_there_is(self) -> None:
        assert sandbox_of("auto").isolation is sandbox_of("bubblewrap").isolation

    @AS_ROOT
    def test_falls_back_to_what_holds(self) -> None:
        assert detected("auto", without=["bwrap"]).splitlines()[-1] == "namespaces"
        assert "commands_not_isolated" in (said := detected("auto", without=["bwrap", "unshare"]))
        assert said.splitlines()[-1] == "none"

    @AS_ROOT
    def test_refuses_what_was_asked_for_and_does_not_hold(self) -> None:
        said = detected("bubblewrap", without=["bwrap"])
        assert "sandbox_unavailable: Commands cannot be run with 'bubblewrap' here" in said
        assert "Install bubblewrap, or set MC_SANDBOX=auto" in said


def detected(preferred: str, without: list[str]) -> str:
    """What a process says that looks for a sandbox on a machine whose `without` programs do not work."""
    hide = [f"mount --bind /bin/false {shutil.which(tool)}" for tool in without]
    ask = [sys.executable, "-c", DETECT, preferred]
    script = " && ".join([*hide, f"exec {shlex.join(ask)}"])
    asked = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


DETECT = """
import sys
from activities.workbench.sandbox import Sandbox
from models.domain.errors import Unavailable
try:
    print(Sandbox.detect(sys.argv[1]).isolation)
except Unavailable as error:
    print(f"{error.code}: {error}")
"""
