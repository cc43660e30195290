"""One revert at most of each merge, and nobody else's work harmed; every origin here is real."""

import asyncio

import pytest

from activities.workbench.merging import RevertConflict, Reverted
from activities.workbench.pushing import TargetDirty
from models.domain.errors import NotFound
from tests.fixtures.merging import SOMEBODY_PUSHES, hook, merge_topic, people_commit, revert_merge
from tests.fixtures.workbenches import MISSION, Bench


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
