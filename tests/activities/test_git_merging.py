"""One merge for each mission, one revert at most, and nobody else's work harmed; every origin here is real."""

import asyncio
import fcntl
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from activities.workbench import pushing
from activities.workbench.commits import Mission
from activities.workbench.git import GitError
from activities.workbench.merging import MergeConflict, Merged, RevertConflict, Reverted, find_merge, merge, revert
from activities.workbench.mirrors import Mirror
from activities.workbench.pushing import PushRefused, TargetDirty, TargetMoved
from activities.workbench.signing import ServiceKey
from models.domain.errors import NotFound, WorkbenchLost
from models.domain.repositories import check_url
from tests.fixtures.waiting import until
from tests.fixtures.workbenches import DATE, EVIDENCE, FIX, MISSION, Bench, make_bench

WORKER = """
import asyncio, sys
from pathlib import Path
from activities.workbench.git import Git
from activities.workbench.merging import merge, revert
from activities.workbench.mirrors import Mirror
from activities.workbench.signing import ServiceKey
from models.domain.repositories import RepositoryUrl
from tests.fixtures.workbenches import DATE, EVIDENCE, MISSION
folder, origin = map(Path, sys.argv[1:3])
action, base, topic, merged = sys.argv[3:]
mirror = Mirror(folder / "mirrors" / "repository.git", RepositoryUrl(str(origin), origin), Git(folder / "home"))
same = {"mission": MISSION, "date": DATE, "key": ServiceKey.load_or_create(folder / "keys" / "signing_key")}
print("ready", flush=True)
if action == "merge":
    asyncio.run(merge(mirror, "main", base=base, topic=topic, evidence=EVIDENCE, **same))
else:
    asyncio.run(revert(mirror, "main", merge_sha=merged, reason="Latency rose.", **same))
"""
SOMEBODY_PUSHES = (
    "unset GIT_QUARANTINE_PATH; git update-ref refs/heads/main "
    "$(git -c user.name=a -c user.email=a@b commit-tree -p main -m x main^{tree})"
)
OTHER = Mission("acme", "mission_20250110_002")


@pytest.fixture(params=["bare", "checked out"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return make_bench(tmp_path, bare=request.param == "bare")


@pytest.fixture
def checked_out(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


@pytest.fixture
def bare(tmp_path: Path) -> Bench:
    return make_bench(tmp_path, bare=True)


async def merge_topic(
    bench: Bench, base: str, topic: str, mission: Mission = MISSION, mirror: Mirror | None = None
) -> Merged:
    place = mirror or bench.mirror
    return await merge(
        place, "main", base=base, topic=topic, mission=mission, evidence=EVIDENCE, date=DATE, key=bench.key
    )


async def revert_merge(bench: Bench, sha: str, mirror: Mirror | None = None) -> Reverted:
    place = mirror or bench.mirror
    return await revert(place, "main", merge_sha=sha, mission=MISSION, reason="Latency rose.", date=DATE, key=bench.key)


def people_commit(bench: Bench, files: dict[str, str]) -> str:
    """Somebody else commits to main of the origin."""
    if bench.work != bench.origin:
        bench.work.git("pull", "-q", "--ff-only", "origin", "main")
    sha = bench.work.commit(files, "Work of others")
    if bench.work != bench.origin:
        bench.work.git("push", "-q", "origin", "main")
    return sha


def merges_in(bench: Bench) -> list[str]:
    return bench.origin.git("log", "--merges", "--format=%H", "main").decode().split()


T = TypeVar("T")


async def again_while_locked(act: Callable[[], Awaitable[T]]) -> T:
    """Try as a workflow does: what a killed worker's git is still finishing is over in a moment."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await act()
            except GitError:
                await asyncio.sleep(0.1)


def hook(bench: Bench, name: str, script: str) -> None:
    file = bench.mirror.url.git_dir / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@contextmanager
def locked_now(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; `BlockingIOError` when somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class TestMerge:
    async def test_signed_merge_with_trailers(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        assert merged == Merged(bench.origin.sha("main"), base, already_there=False)
        shown = bench.origin.git("log", "-1", "--format=%P%n%s%n%(trailers:only)", "main").decode().split("\n")
        assert shown[:5] == [
            f"{base} {topic}",
            f"Merge {MISSION.mission_id} into main",
            f"Mission-Id: {MISSION.mission_id}",
            "Mission-Workspace: acme",
            f"Evidence: {EVIDENCE}",
        ]
        bench.origin.git("-c", f"gpg.ssh.allowedSignersFile={bench.key.allowed_signers}", "verify-commit", "main")
        assert bench.origin.show("main", "app.py").decode() == FIX["app.py"]

    async def test_second_try_finds_the_first(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        first = await merge_topic(bench, base, topic)
        again = await merge_topic(bench, base, topic)
        people_commit(bench, {"later.py": "x = 1\n"})
        later = await merge_topic(bench, base, topic)
        assert again == later == Merged(first.sha, base, already_there=True)
        assert merges_in(bench) == [first.sha]

    async def test_another_host_makes_the_same_commit(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        other = bench.second_mirror()
        await other.fetch()
        with pytest.raises(WorkbenchLost):
            await merge_topic(bench, base, topic, mirror=other)
        await bench.mirror.git("push", "-q", str(other.path), f"{topic}:refs/mission-control/acme/x/{topic}")
        sha = (await merge_topic(bench, base, topic)).sha
        assert (await merge_topic(bench, base, topic, mirror=other)).sha == sha

    async def test_target_moved(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        head = people_commit(bench, {"later.py": "x = 1\n"})
        with pytest.raises(TargetMoved) as moved:
            await merge_topic(bench, base, topic)
        assert moved.value.head == head
        assert not merges_in(bench)

    async def test_target_rewritten(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        bench.work.git("checkout", "-q", "--orphan", "new")
        head = bench.work.commit({"x": "1\n"})
        bench.work.git("branch", "-f", "main", "new")
        if bench.work != bench.origin:
            bench.work.git("push", "-q", "-f", "origin", "main")
        with pytest.raises(TargetMoved) as moved:
            await merge_topic(bench, base, topic)
        assert moved.value.head == head

    async def test_conflict(self, bench: Bench) -> None:
        _, topic = await bench.topic()
        base = people_commit(bench, {"app.py": "def add(a, b):\n    return sum((a, b))\n"})
        with pytest.raises(MergeConflict) as conflict:
            await merge_topic(bench, base, topic)
        assert conflict.value.files == ("app.py",)
        assert bench.origin.sha("main") == base

    async def test_unknown_branch(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        with pytest.raises(NotFound):
            await merge(
                bench.mirror, "nope", base=base, topic=topic, mission=MISSION, evidence="", date=DATE, key=bench.key
            )

    async def test_two_missions_at_once(self, bench: Bench) -> None:
        """Two mirrors, as on two hosts: one wins, the other hears where the branch went, the checkout stays clean."""
        base, first = await bench.topic()
        _, second = await bench.topic(OTHER, {"other.py": "x = 1\n"})
        other = bench.second_mirror()
        await other.fetch()
        await bench.mirror.git("push", "-q", str(other.path), f"{second}:refs/mission-control/acme/x/{second}")
        results = await asyncio.gather(
            merge_topic(bench, base, first),
            merge_topic(bench, base, second, OTHER, other),
            return_exceptions=True,
        )
        assert {type(result) for result in results} == {Merged, TargetMoved}
        assert len(merges_in(bench)) == 1
        assert bench.work != bench.origin or bench.work.git("status", "--porcelain") == b""

    async def test_one_mission_tried_by_many_at_once(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        results = await asyncio.gather(*(merge_topic(bench, base, topic) for _ in range(5)))
        assert len({result.sha for result in results}) == 1
        assert len(merges_in(bench)) == 1

    async def test_cancelled_anywhere_and_tried_again(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        for step in range(12):
            task = asyncio.ensure_future(merge_topic(bench, base, topic))
            await asyncio.sleep(step * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        merged = await merge_topic(bench, base, topic)
        assert merges_in(bench) == [merged.sha]
        assert bench.work != bench.origin or bench.work.git("status", "--porcelain") == b""


class TestKilled:
    @pytest.mark.parametrize("action", ["merge", "revert"])
    async def test_worker_killed_anywhere(self, bench: Bench, action: str) -> None:
        """The delays walk a SIGKILL of the worker through its work; the branch ends with one merge and one revert."""
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic) if action == "revert" else None
        what = (str(bench.folder), str(bench.origin.path), action, base, topic, merged.sha if merged else "")
        for step in range(5):
            worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *what, stdout=PIPE)
            assert worker.stdout
            await worker.stdout.readline()
            await asyncio.sleep(step * 0.03)
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
        sha = merged.sha if merged else (await again_while_locked(lambda: merge_topic(bench, base, topic))).sha
        await again_while_locked(lambda: revert_merge(bench, sha))
        assert merges_in(bench) == [sha]
        assert bench.origin.git("rev-list", "--count", f"{sha}..main").decode().strip() == "1"
        assert bench.work != bench.origin or bench.work.git("status", "--porcelain") == b""

    async def test_what_it_pushed_holds_the_origin_until_it_ends(self, bench: Bench) -> None:
        """The owner's hook takes its time; the next try comes meanwhile, and must not put back what is being merged."""
        base, topic = await bench.topic()
        began, go_on = bench.folder / "began", bench.folder / "go-on"
        hook(bench, "pre-receive", f"touch {began}; while ! [ -e {go_on} ]; do sleep 0.05; done")
        what = (str(bench.folder), str(bench.origin.path), "merge", base, topic, "")
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *what, stdout=PIPE)
        await until(began.exists)
        worker.kill()
        await worker.wait()
        again = asyncio.ensure_future(merge_topic(bench, base, topic))
        with pytest.raises(BlockingIOError), locked_now(bench.mirror.url.git_dir):
            raise AssertionError("the origin is free while a push into it goes on")
        go_on.touch()
        merged = await again
        assert merges_in(bench) == [merged.sha] == [bench.origin.sha("main")]
        assert bench.work != bench.origin or bench.work.git("status", "--porcelain") == b""

    async def test_what_it_pushed_never_ends(self, bare: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pushing, "_WAIT_SECONDS", 0.1)
        base, topic = await bare.topic()
        with locked_now(bare.mirror.url.git_dir), pytest.raises(GitError, match="look at what its hooks still do"):
            await merge_topic(bare, base, topic)
        assert bare.origin.sha("main") == base


class TestFindMerge:
    async def test_only_what_we_signed_counts(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        bench.work.branch("forged", FIX)
        bench.work.git("merge", "-q", "--no-ff", "forged", "-m", f"x\n\n{_text(MISSION.trailers())}")
        if bench.work != bench.origin:
            bench.work.git("push", "-q", "origin", "main")
        await bench.mirror.fetch()
        assert await find_merge(bench.mirror, "main", MISSION, base, bench.key) is None
        with pytest.raises(TargetMoved):
            await merge_topic(bench, base, topic)

    async def test_same_mission_id_of_another_workspace(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        await bench.mirror.fetch()
        assert await find_merge(bench.mirror, "main", MISSION, base, bench.key) == merged.sha
        assert await find_merge(bench.mirror, "main", Mission("other", MISSION.mission_id), base, bench.key) is None
        assert await find_merge(bench.mirror, "main", Mission("acme", "mission_20250110_00"), base, bench.key) is None

    async def test_what_an_older_key_signed_counts(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        bench.key.path.unlink()
        bench.key = ServiceKey.load_or_create(bench.key.path)
        assert await merge_topic(bench, base, topic) == Merged(merged.sha, base, already_there=True)


class TestOrigins:
    async def test_clean_checkout_follows(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic()
        checked_out.work.write({"untracked": "x\n"})
        await merge_topic(checked_out, base, topic)
        assert (checked_out.work.path / "app.py").read_text() == FIX["app.py"]
        assert checked_out.work.git("status", "--porcelain") == b"?? untracked\n"

    @pytest.mark.parametrize("staged", [False, True])
    async def test_dirty_checkout_is_left_alone(self, checked_out: Bench, staged: bool) -> None:
        base, topic = await checked_out.topic()
        checked_out.work.write({"lib/util.py": "half done\n"})
        if staged:
            checked_out.work.git("add", "-A")
        with pytest.raises(TargetDirty, match="commit or stash"):
            await merge_topic(checked_out, base, topic)
        assert checked_out.origin.sha("main") == base
        assert (checked_out.work.path / "lib/util.py").read_text() == "half done\n"

    async def test_untracked_file_in_the_way(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic(files={"new.py": "ours\n"})
        checked_out.work.write({"new.py": "theirs\n"})
        with pytest.raises(TargetDirty):
            await merge_topic(checked_out, base, topic)
        assert (checked_out.work.path / "new.py").read_text() == "theirs\n"

    @pytest.mark.parametrize("lock", ["index.lock", "refs/heads/main.lock"])
    async def test_another_git_is_at_work_there(self, checked_out: Bench, lock: str) -> None:
        base, topic = await checked_out.topic()
        (checked_out.mirror.url.git_dir / lock).touch()
        with pytest.raises(GitError, match="lock file"):
            await merge_topic(checked_out, base, topic)
        (checked_out.mirror.url.git_dir / lock).unlink()
        assert not (await merge_topic(checked_out, base, topic)).already_there
        assert checked_out.work.git("status", "--porcelain") == b""

    async def test_files_of_a_broken_off_push_are_put_back(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic()
        merged = await merge_topic(checked_out, base, topic)
        checked_out.work.git("update-ref", "refs/heads/main", base)
        assert await merge_topic(checked_out, base, topic) == merged
        assert checked_out.work.git("status", "--porcelain") == b""

    async def test_other_branch_checked_out(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic()
        checked_out.work.git("checkout", "-q", "-b", "mine")
        checked_out.work.write({"app.py": "half done\n"})
        await merge_topic(checked_out, base, topic)
        assert (checked_out.work.path / "app.py").read_text() == "half done\n"

    @pytest.mark.parametrize("name", ["pre-receive", "update"])
    async def test_hook_refuses(self, bench: Bench, name: str) -> None:
        base, topic = await bench.topic()
        hook(bench, name, "echo 'main is protected' >&2; exit 1")
        with pytest.raises(PushRefused) as refused:
            await merge_topic(bench, base, topic)
        assert refused.value.code == "push_refused"
        assert "hook declined" in refused.value.message
        assert bench.origin.sha("main") == base

    async def test_push_arrived_but_its_answer_was_lost(self, bare: Bench) -> None:
        base, topic = await bare.topic()
        hook(bare, "post-receive", "kill -9 $PPID")
        merged = await merge_topic(bare, base, topic)
        assert bare.origin.sha("main") == merged.sha

    async def test_somebody_pushes_right_behind_us(self, bare: Bench) -> None:
        """The answer is lost and the branch has moved on: our merge is still found, not made twice."""
        base, topic = await bare.topic()
        hook(bare, "post-receive", f"{SOMEBODY_PUSHES}; kill -9 $PPID")
        merged = await merge_topic(bare, base, topic)
        assert merged.already_there
        assert merges_in(bare) == [merged.sha]

    async def test_origin_breaks_off(self, bare: Bench) -> None:
        base, topic = await bare.topic()
        hook(bare, "pre-receive", "kill -9 $PPID")
        with pytest.raises(GitError):
            await merge_topic(bare, base, topic)
        hook(bare, "pre-receive", "exit 0")
        assert not (await merge_topic(bare, base, topic)).already_there

    async def test_a_daemon_of_a_hook_does_not_keep_the_origin(self, bare: Bench) -> None:
        base, topic = await bare.topic()
        pid = bare.folder / "pid"
        hook(bare, "post-receive", f"setsid sleep 60 <&- >&- 2>&- & echo $! > {pid}")
        await merge_topic(bare, base, topic)
        try:
            with locked_now(bare.mirror.url.git_dir):
                assert psutil.Process(int(pid.read_text())).is_running()
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)

    async def test_hooks_get_no_secrets(self, bare: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://ada:hush@db")
        base, topic = await bare.topic()
        hook(bare, "post-receive", f"env > {bare.folder}/seen")
        await merge_topic(bare, base, topic)
        assert "hush" not in (bare.folder / "seen").read_text()


class TestRemote:
    """Over ssh, with a program in its place that runs the other side here."""

    @pytest.fixture
    def remote(self, bare: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
        ssh = bare.folder / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text('#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", str(ssh.parent), prepend=":")
        url = check_url(f"ssh://git@example.com{bare.origin.path}", [])
        bare.mirror = Mirror(bare.mirror.path, url, bare.git)
        return bare

    async def test_merge_and_revert(self, remote: Bench) -> None:
        base, topic = await remote.topic()
        merged = await merge_topic(remote, base, topic)
        assert (await merge_topic(remote, base, topic)).already_there
        reverted = await revert_merge(remote, merged.sha)
        assert remote.origin.sha("main") == reverted.sha

    async def test_moved(self, remote: Bench) -> None:
        base, topic = await remote.topic()
        people_commit(remote, {"later.py": "x = 1\n"})
        with pytest.raises(TargetMoved):
            await merge_topic(remote, base, topic)

    async def test_no_rights_to_push(self, remote: Bench) -> None:
        base, topic = await remote.topic()
        refuse = 'case "$*" in *receive-pack*) echo "Permission denied (publickey)." >&2; exit 255;; esac'
        ssh = remote.folder / "bin" / "ssh"
        ssh.write_text(ssh.read_text().replace("exec", f"{refuse}\nexec"))
        with pytest.raises(PushRefused) as refused:
            await merge_topic(remote, base, topic)
        assert refused.value.code == "push_unauthorized"

    async def test_unreachable(self, remote: Bench) -> None:
        (remote.folder / "bin" / "ssh").write_text("#!/bin/sh\necho 'ssh: no route to host' >&2\nexit 255\n")
        with pytest.raises(GitError, match="no route to host"):
            await remote.mirror.fetch()


class TestRevert:
    async def test_tree_is_as_before(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        reverted = await revert_merge(bench, merged.sha)
        assert bench.origin.sha("main") == reverted.sha
        assert bench.origin.sha("main^{tree}") == bench.origin.sha(f"{base}^{{tree}}")
        trailers = bench.origin.git("log", "-1", "--format=%(trailers:only)", "main").decode()
        assert f"Reverts-Mission: {MISSION.mission_id}" in trailers
        bench.origin.git("-c", f"gpg.ssh.allowedSignersFile={bench.key.allowed_signers}", "verify-commit", "main")

    async def test_second_try_finds_the_first(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        first = await revert_merge(bench, merged.sha)
        people_commit(bench, {"later.py": "x = 1\n"})
        assert await revert_merge(bench, merged.sha) == Reverted(first.sha, already_there=True)

    async def test_later_commits_of_others_stay(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        util = bench.origin.show("main", "lib/util.py").decode()
        people_commit(bench, {"later.py": "x = 1\n", "lib/util.py": util.replace("LINE_20 = 20", "LINE_20 = 21")})
        await revert_merge(bench, merged.sha)
        changed = bench.origin.git("diff", "--name-only", base, "main").decode().split()
        assert changed == ["later.py", "lib/util.py"]

    async def test_conflict_changes_nothing(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        head = people_commit(bench, {"app.py": "def add(a, b):\n    return a + b + 0\n"})
        with pytest.raises(RevertConflict) as conflict:
            await revert_merge(bench, merged.sha)
        assert conflict.value.files == ("app.py",)
        assert bench.origin.sha("main") == head

    async def test_many_at_once_make_one(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        results = await asyncio.gather(*(revert_merge(bench, merged.sha) for _ in range(4)))
        assert len({result.sha for result in results}) == 1
        assert bench.origin.git("rev-list", "--count", f"{merged.sha}..main").decode().strip() == "1"

    async def test_branch_that_moves_meanwhile_is_followed(self, bare: Bench) -> None:
        base, topic = await bare.topic()
        merged = await merge_topic(bare, base, topic)
        once = bare.folder / "moved"
        hook(bare, "pre-receive", f"[ -e {once} ] && exit 0; touch {once}; {SOMEBODY_PUSHES}")
        reverted = await revert_merge(bare, merged.sha)
        assert bare.origin.sha("main") == reverted.sha
        assert bare.origin.git("rev-list", "--count", f"{merged.sha}..main").decode().strip() == "2"

    async def test_merge_is_not_in_the_branch(self, bench: Bench) -> None:
        _, topic = await bench.topic()
        with pytest.raises(NotFound) as missing:
            await revert_merge(bench, topic)
        assert missing.value.code == "merge_not_found"

    async def test_from_another_host(self, bench: Bench) -> None:
        base, topic = await bench.topic()
        merged = await merge_topic(bench, base, topic)
        reverted = await revert_merge(bench, merged.sha, bench.second_mirror())
        assert await revert_merge(bench, merged.sha) == Reverted(reverted.sha, already_there=True)

    async def test_dirty_checkout_is_left_alone(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic()
        merged = await merge_topic(checked_out, base, topic)
        checked_out.work.write({"app.py": "half done\n"})
        with pytest.raises(TargetDirty):
            await revert_merge(checked_out, merged.sha)
        assert checked_out.origin.sha("main") == merged.sha


def _text(trailers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in trailers.items())
