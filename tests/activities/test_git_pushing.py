"""Pushing a merge into a real origin: checked out or bare, with hooks, or over ssh; nobody else's work is harmed."""

import asyncio
import os
import signal
from itertools import pairwise

import psutil
import pytest

from activities.workbench.commits import Draft, commit
from activities.workbench.git import GitError
from activities.workbench.mirrors import Mirror
from activities.workbench.patching import apply_diff
from activities.workbench.pushing import PushRefused, TargetDirty, TargetMoved, push
from models.domain.errors import WorkbenchLost
from models.repositories import check_url
from tests.fixtures.merging import (
    SOMEBODY_PUSHES,
    hook,
    locked_now,
    merge_topic,
    merges_in,
    people_commit,
    revert_merge,
)
from tests.fixtures.workbenches import DATE, FILES, FIX, MISSION, Bench, damage


def own_folder(bench: Bench) -> None:
    """Give the mission a folder for its objects, as every real one has."""
    bench.mirror = Mirror(bench.mirror.path, bench.mirror.url, bench.git, bench.folder / "own")


async def commits_in_line(bench: Bench, count: int) -> list[str]:
    """Make commits on top of main, each with a file more, that are not pushed yet; the head of main comes first."""
    await bench.mirror.fetch()
    line = [await bench.mirror.head("main")]
    for number in range(count):
        applied = await apply_diff(bench.mirror, line[-1], bench.work.diff_of({f"{number}.txt": f"{number}\n"}))
        draft = Draft(applied.tree, (line[-1],), "Next", MISSION.trailers(), DATE)
        line.append(await commit(bench.mirror, draft, bench.key))
    return line


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
        with pytest.raises(TargetDirty, match=r"work in lib/util\.py \(.*commit or stash"):
            await merge_topic(checked_out, base, topic)
        assert checked_out.origin.sha("main") == base
        assert (checked_out.work.path / "lib/util.py").read_text() == "half done\n"

    async def test_the_first_few_of_many_files_in_the_way_are_named(self, checked_out: Bench) -> None:
        checked_out.origin.commit({f"{number}.txt": "x\n" for number in range(5)}, "Five")
        base, topic = await checked_out.topic()
        checked_out.work.write({f"{number}.txt": "half done\n" for number in range(5)})
        with pytest.raises(TargetDirty, match=r"work in 0\.txt, 1\.txt, 2\.txt and 2 more \(") as told:
            await merge_topic(checked_out, base, topic)
        assert told.value.details["files"] == ["0.txt", "1.txt", "2.txt"]

    async def test_untracked_file_in_the_way(self, checked_out: Bench) -> None:
        base, topic = await checked_out.topic(files={"new.py": "ours\n"})
        checked_out.work.write({"new.py": "theirs\n"})
        with pytest.raises(TargetDirty, match=r"work in new\.py \("):
            await merge_topic(checked_out, base, topic)
        assert (checked_out.work.path / "new.py").read_text() == "theirs\n"

    @pytest.mark.parametrize("lock", ["index.lock", "refs/heads/main.lock"])
    async def test_another_git_is_at_work_there(self, checked_out: Bench, lock: str) -> None:
        base, topic = await checked_out.topic()
        (checked_out.mirror.origin_dir / lock).touch()
        with pytest.raises(GitError, match="lock file"):
            await merge_topic(checked_out, base, topic)
        (checked_out.mirror.origin_dir / lock).unlink()
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
            with locked_now(bare.mirror.origin_dir):
                assert psutil.Process(int(pid.read_text())).is_running()
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)

    async def test_hooks_get_no_secrets(self, bare: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://ada:hush@db")
        base, topic = await bare.topic()
        hook(bare, "post-receive", f"env > {bare.folder}/seen")
        await merge_topic(bare, base, topic)
        assert "hush" not in (bare.folder / "seen").read_text()


class TestReadingTheMirror:
    """What is pushed is read from the mirror and the mission's own folder, and either may be damaged."""

    async def test_a_push_goes_on_while_the_mirror_is_made_anew(self, bare: Bench) -> None:
        bare.work.branch("others", {"others.txt": "x\n"})
        bare.work.git("push", "-q", "origin", "others")
        own_folder(bare)
        chain, ended = await commits_in_line(bare, 12), asyncio.Event()

        async def make_anew() -> int:
            times = 0
            while not ended.is_set():
                damage(bare, bare.work.sha("others:others.txt"))
                times += await bare.second_mirror("repository").mend()
            return times

        making = asyncio.ensure_future(make_anew())
        try:
            for old, new in pairwise(chain):
                await push(bare.mirror, "main", old, new)
        finally:
            ended.set()
            times = await making
        assert times > 1
        assert bare.origin.sha("main") == chain[-1]

    @pytest.mark.parametrize("whose", ["mirror", "mission"])
    async def test_damage_is_mended_and_refuses_nothing(self, bare: Bench, whose: str) -> None:
        own_folder(bare)
        files = {"lib/util.py": FILES["lib/util.py"] + "LAST = 1\n"}
        base, topic = await bare.topic(files=files)
        read = f"{base}:lib" if whose == "mirror" else f"{topic}:lib/util.py"
        sha = (await bare.mirror.git("rev-parse", read)).text
        damage(bare, sha, bare.folder / "own" if whose == "mission" else None)
        with pytest.raises(GitError, match="cannot be read here"):
            await merge_topic(bare, base, topic)
        if whose == "mission":
            with pytest.raises(WorkbenchLost):
                await merge_topic(bare, base, topic)
            assert await bare.topic(files=files) == (base, topic)
        assert not (await merge_topic(bare, base, topic)).already_there

    async def test_an_origin_that_takes_no_such_content_refuses(self, bare: Bench) -> None:
        bare.origin.git("config", "receive.fsckObjects", "true")
        base, topic = await bare.topic(files={".gitmodules": '[submodule "a"]\n\tpath = a\n\turl = -u\n'})
        with pytest.raises(PushRefused) as refused:
            await merge_topic(bare, base, topic)
        assert refused.value.code == "push_refused"


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
