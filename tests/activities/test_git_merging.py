"""One merge for each mission, whatever happens meanwhile; every origin here is real."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from activities.workbench import pushing
from activities.workbench.commits import Mission
from activities.workbench.git import GitError
from activities.workbench.merging import MergeConflict, Merged, find_merge, merge
from activities.workbench.pushing import TargetMoved
from activities.workbench.signing import ServiceKey
from models.domain.errors import NotFound, WorkbenchLost
from tests.fixtures.merging import hook, locked_now, merge_topic, merges_in, people_commit, revert_merge
from tests.fixtures.waiting import until
from tests.fixtures.workbenches import DATE, EVIDENCE, FIX, MISSION, Bench

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
OTHER = Mission("acme", "mission_20250110_002")


T = TypeVar("T")


async def again_while_locked(act: Callable[[], Awaitable[T]]) -> T:
    """Try as a workflow does: what a killed worker's git is still finishing is over in a moment."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await act()
            except GitError:
                await asyncio.sleep(0.1)


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
        with pytest.raises(BlockingIOError), locked_now(bench.mirror.origin_dir):
            raise AssertionError("the origin is free while a push into it goes on")
        go_on.touch()
        merged = await again
        assert merges_in(bench) == [merged.sha] == [bench.origin.sha("main")]
        assert bench.work != bench.origin or bench.work.git("status", "--porcelain") == b""

    async def test_what_it_pushed_never_ends(self, bare: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pushing, "_WAIT_SECONDS", 0.1)
        base, topic = await bare.topic()
        with locked_now(bare.mirror.origin_dir), pytest.raises(GitError, match="look at what its hooks still do"):
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


def _text(trailers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in trailers.items())
