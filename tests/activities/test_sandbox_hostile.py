"""A test suite that means harm: it finds nothing, harms nothing, and the result says what it was stopped for."""

import os
import shlex
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from activities.workbench.command import Mount, Stopped
from tests.fixtures.sandboxes import EVERY_KIND, KINDS_THAT_HIDE, TIGHT, Bench, bench

MEGABYTE = 1024**2
NO_GUARD = "without isolation, and without a user to drop to, nothing parts the command's user from ours"


@pytest.fixture(params=EVERY_KIND)
def anywhere(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


@pytest.fixture(params=KINDS_THAT_HIDE)
def isolated(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        yield made


@pytest.fixture
def guarded(anywhere: Bench) -> Bench:
    """Every kind that parts the command's user from ours."""
    if not anywhere.hides and not anywhere.as_root:
        pytest.skip(NO_GUARD)
    return anywhere


class TestUsesEverythingUp:
    """Each is stopped, named, and gone."""

    async def test_hangs_and_is_deaf_to_sigterm(self, anywhere: Bench) -> None:
        line = "trap '' TERM; echo deaf; while :; do sleep 60 & wait; done"
        result = await anywhere.run(line, replace(TIGHT, seconds=0.5))
        assert (result.stopped, result.exit_code) == (Stopped.TIMEOUT, None)
        assert anywhere.text == "deaf\n"
        assert anywhere.survivors() == []

    async def test_forks_for_ever(self, anywhere: Bench) -> None:
        # Those that may fork no more stay: a bomb that burns out between two looks would prove nothing.
        result = await anywhere.run("bomb() { bomb & bomb & wait; exec sleep 60; }; bomb 2>/dev/null")
        assert result.stopped is Stopped.PROCESSES
        assert anywhere.survivors() == []

    async def test_takes_all_memory(self, anywhere: Bench) -> None:
        result = await anywhere.run("python3 -c 'import time; held = bytearray(400 << 20); time.sleep(60)'")
        assert result.stopped is Stopped.MEMORY
        assert result.peak_memory >= 0.9 * TIGHT.memory
        assert anywhere.survivors() == []

    async def test_takes_all_memory_in_many_children(self, anywhere: Bench) -> None:
        hog = "import time; held = bytearray(50 << 20); time.sleep(60)"
        result = await anywhere.run(f"for n in 1 2 3 4 5 6 7 8; do python3 -c '{hog}' & done; wait")
        assert result.stopped is Stopped.MEMORY
        assert anywhere.survivors() == []

    async def test_fills_the_disk_with_files(self, anywhere: Bench) -> None:
        line = "n=0; while :; do head -c 1000000 /dev/zero > fill$n; n=$((n + 1)); sleep 0.002; done"
        result = await anywhere.run(line)
        assert result.stopped is Stopped.DISK
        written = sum(file.stat().st_size for file in anywhere.workspace.iterdir())
        assert TIGHT.disk <= written < TIGHT.disk + 500 * MEGABYTE

    async def test_fills_the_disk_with_one_file(self, anywhere: Bench) -> None:
        result = await anywhere.run("cat /dev/zero > fill")
        assert result.stopped is Stopped.DISK
        assert (anywhere.workspace / "fill").stat().st_size <= TIGHT.disk

    async def test_fills_the_disk_with_empty_files(self, anywhere: Bench) -> None:
        program = "import os\nfor n in range(10**9): os.close(os.open(f'f{n}', os.O_CREAT))"
        result = await anywhere.run(f'python3 -c "{program}"', replace(TIGHT, disk=4 * MEGABYTE))
        assert result.stopped is Stopped.DISK

    async def test_fills_the_disk_with_deleted_files(self, anywhere: Bench) -> None:
        program = (
            "import os, time\n"
            "held = []\n"
            "for n in range(8):\n"
            "    held.append(open('f', 'wb')); os.unlink('f'); held[-1].write(b'x' * (5 << 20)); held[-1].flush()\n"
            "time.sleep(60)"
        )
        result = await anywhere.run(f'python3 -c "{program}"')
        assert result.stopped is Stopped.DISK

    async def test_fills_the_scratch_folder(self, anywhere: Bench) -> None:
        result = await anywhere.run("cat /dev/zero > $HOME/fill; echo it is full; sleep 60")
        assert result.stopped is Stopped.DISK
        assert not list(Path("/run/mission-control").rglob("fill"))

    async def test_prints_a_gigabyte(self, anywhere: Bench) -> None:
        taken = 0
        before = psutil.Process().memory_info().rss

        async def count(data: bytes) -> None:
            nonlocal taken
            taken += len(data)

        limits = replace(TIGHT, output=64 * MEGABYTE)
        result = await anywhere.sandbox.run(anywhere.command("yes | head -c 1000000000", limits), count)
        assert result.stopped is Stopped.OUTPUT
        assert taken == limits.output
        assert psutil.Process().memory_info().rss - before < 32 * MEGABYTE

    async def test_closes_its_worktree_to_hide_what_it_writes(self, anywhere: Bench) -> None:
        line = (
            "mkdir hidden; cd hidden; chmod 300 .; n=0; while :; do head -c 1000000 /dev/zero > $n; n=$((n + 1)); done"
        )
        result = await anywhere.run(line)
        assert result.stopped is Stopped.DISK


class TestWantsToStay:
    """Nothing of it lives on, and we do."""

    async def test_daemonises(self, anywhere: Bench) -> None:
        daemon = "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 60 & wait; done' >/dev/null 2>&1 &"
        # It waits until the daemon runs: one that has not begun yet would prove nothing.
        result = await anywhere.run(f"({daemon})\nuntil pgrep -f 'trap.*TERM HUP' >/dev/null; do :; done; sleep 0.2")
        assert result.ok
        assert result.left_behind == 2  # the shell, and what it waits for
        assert anywhere.survivors() == []

    async def test_daemonises_and_keeps_the_output_open(self, guarded: Bench) -> None:
        result = await guarded.run("setsid sleep 600 & echo done")
        assert result.ok
        assert guarded.text == "done\n"
        assert result.left_behind == 1
        assert guarded.survivors() == []

    async def test_is_counted_however_many_it_is(self, anywhere: Bench) -> None:
        result = await anywhere.run("for n in 1 2 3 4 5 6 7; do setsid sleep 600 & done; exit 3")
        assert (result.exit_code, result.left_behind) == (3, 7)
        assert anywhere.survivors() == []

    async def test_who_ends_with_the_command_is_not_counted(self, anywhere: Bench) -> None:
        result = await anywhere.run("mkfifo pipe; cat pipe & exec 3> pipe; (exit 0) & sleep 0 & echo done >&3")
        assert (result.ok, result.left_behind) == (True, 0)
        assert anywhere.text == "done\n"

    async def test_what_was_stopped_left_nothing_behind_by_itself(self, anywhere: Bench) -> None:
        result = await anywhere.run("setsid sleep 600 & sleep 600", replace(TIGHT, seconds=0.5))
        assert (result.stopped, result.left_behind) == (Stopped.TIMEOUT, 0)

    @pytest.mark.parametrize("target", ["$PPID", "1", "-1"])
    async def test_kills_who_started_it(self, guarded: Bench, target: str) -> None:
        bystander = psutil.Popen(["sleep", "60"])
        try:
            result = await guarded.run(f"kill -9 {target}; echo still here; exit 7")
            assert result.stopped is None
            assert (result.exit_code, guarded.text.endswith("still here\n")) == (7, True)
            assert bystander.is_running()
        finally:
            bystander.kill()
            bystander.wait()


class TestLooksForSecrets:
    async def test_finds_no_key_file(self, guarded: Bench) -> None:
        data = guarded.root / "data"
        data.mkdir(mode=0o700)
        for place in (data, Path.home() if os.access(Path.home(), os.W_OK) else data):
            key = place / f"{guarded.token}.key"
            key.touch(mode=0o600)
            key.write_text("very-secret")
            try:
                result = await guarded.run(f"cat /proc/1/root{key}; cat {key}")
            finally:
                key.unlink()
            assert result.exit_code == 1
            assert "very-secret" not in guarded.text

    async def test_finds_no_secret_in_any_environment(self, guarded: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MC_API_KEY", "very-secret")
        holder = psutil.Popen(["sleep", "60"])
        try:
            await guarded.run("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
        finally:
            holder.kill()
            holder.wait()
        assert guarded.token in guarded.text
        assert "very-secret" not in guarded.text

    async def test_finds_no_other_worktree(self, isolated: Bench) -> None:
        other = isolated.root / "other"
        other.mkdir()
        (other / "unpublished.py").touch()
        await isolated.run(f"ls {other}; find / -name unpublished.py -not -path '/usr/*' 2>/dev/null")
        assert "unpublished" not in isolated.text

    async def test_learns_no_path_of_the_host(self, isolated: Bench) -> None:
        await isolated.run(
            "cat /proc/self/mountinfo /proc/mounts /proc/1/cmdline /proc/self/cgroup; pwd -P; df; hostname"
        )
        assert str(isolated.root) not in isolated.text
        assert "mission-control-" not in isolated.text

    async def test_sees_no_process_of_the_host(self, isolated: Bench) -> None:
        result = await isolated.run(
            f'test "$(ls -d /proc/[0-9]* | wc -l)" -lt 8 && ! grep -q {os.getpid()} /proc/[0-9]*/stat'
        )
        assert result.ok


class TestLooksForTheNetwork:
    @pytest.fixture
    def database_port(self) -> Iterator[int]:
        """Something of ours that listens on the host's loopback, as PostgreSQL and Temporal do."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    async def test_finds_no_database_by_port(self, isolated: Bench, database_port: int) -> None:
        result = await isolated.run(_connects("AF_INET", ("127.0.0.1", database_port)))
        assert "ConnectionRefusedError" in isolated.text, result

    async def test_finds_no_database_by_socket(self, isolated: Bench) -> None:
        path = str(isolated.root / ".s.PGSQL.5432")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            await isolated.run(_connects("AF_UNIX", path))
        assert "FileNotFoundError" in isolated.text

    async def test_finds_no_socket_without_a_path(self, isolated: Bench) -> None:
        name = f"\0{isolated.token}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            server.listen()
            await isolated.run(_connects("AF_UNIX", name))
        assert "ConnectionRefusedError" in isolated.text

    async def test_finds_no_way_out(self, isolated: Bench) -> None:
        await isolated.run(f"{_connects('AF_INET', ('192.0.2.1', 80))}; tail -n +3 /proc/net/dev | cut -d: -f1")
        assert "Network is unreachable" in isolated.text
        assert isolated.text.split()[-1] == "lo"


class TestReachesForOurHands:
    async def test_writes_nothing_our_git_would_obey(self, isolated: Bench) -> None:
        git = isolated.workspace / ".git"
        git.mkdir()
        (git / "config").write_text("[core]\n")
        await isolated.run(
            "echo evil >> .git/config; echo evil > .git/hook; rm -rf .git; mv .git away; mkdir -p new && mv new .git"
        )
        assert (git / "config").read_text() == "[core]\n"
        assert [file.name for file in git.iterdir()] == ["config"]

    async def test_sees_no_link_to_the_host_in_git(self, isolated: Bench) -> None:
        (isolated.workspace / ".git").write_text("gitdir: /somewhere/on/the/host\n")
        await isolated.run("cat .git; rm -f .git; echo gitdir: /evil > .git")
        assert "somewhere" not in isolated.text
        assert (isolated.workspace / ".git").read_text() == "gitdir: /somewhere/on/the/host\n"

    async def test_its_variables_reach_only_itself(self, anywhere: Bench) -> None:
        """Every program that starts with `LD_PRELOAD` set to something missing complains once."""
        await anywhere.run("exec true", env={"LD_PRELOAD": "/missing.so", "PATH": "/workspace:/usr/bin:/bin"})
        assert anywhere.text.count("cannot be preloaded") == 2  # the shell of the command line, and `true`

    async def test_writes_no_toolchain_and_no_system(self, isolated: Bench) -> None:
        places = "/ /usr /etc /dev /run /toolchain/python /proc/sys/kernel"
        await isolated.run(f"for place in {places}; do touch $place/x 2>/dev/null && echo wrote $place; done")
        assert isolated.text == ""

    async def test_leaves_no_setuid_program(self, guarded: Bench) -> None:
        await guarded.run("cp /bin/sh key; chmod 6755 key")
        assert not (guarded.workspace / "key").stat().st_mode & 0o6000 or not guarded.as_root

    async def test_reads_only_what_is_mounted_read_only(self, isolated: Bench) -> None:
        shared = isolated.root / "env"
        shared.mkdir()
        (shared / "tool").write_text("good")
        mounts = (*isolated.command("").mounts, Mount(shared, "/env"))
        await isolated.run("echo evil > /env/tool; mount -o remount,rw /env; echo evil > /env/tool", mounts=mounts)
        assert (shared / "tool").read_text() == "good"


def _connects(family: str, address: object) -> str:
    program = f"import socket; socket.socket(socket.{family}).connect({address!r})"
    return f"python3 -c {shlex.quote(program)}"
