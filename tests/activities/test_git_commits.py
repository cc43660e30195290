"""Branches and commits of others become candidates, and candidates become commits; every git here is real."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from activities.workbench.mirrors import Mirror
from activities.workbench.patching import apply_diff, apply_ref, commit_only, commit_patch
from models.domain.errors import NotFound, StageFailed
from models.domain.law import split_test_files
from tests.fixtures.workbenches import DATE, FIX, MISSION, Bench, apply, content, fetched


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return await fetched(tmp_path)


class TestApplyRef:
    async def test_what_the_branch_changed_since_it_left(self, bench: Bench) -> None:
        bench.work.branch("fix", FIX)
        bench.work.commit({"later.py": "x = 1\n"})
        await bench.mirror.fetch()
        base = await bench.mirror.head("main")
        applied = await apply_ref(bench.mirror, base, "fix")
        assert applied.summary.paths == ("app.py", "tests/test_app.py")
        assert await content(bench, applied, "later.py") == b"x = 1\n"

    @pytest.mark.parametrize("how", ["refs/heads/fix", "v1", "refs/tags/v1", "sha", "short sha"])
    async def test_names_of_a_commit(self, bench: Bench, how: str) -> None:
        sha = bench.work.branch("fix", FIX)
        bench.work.git("tag", "v1", "fix")
        await bench.mirror.fetch()
        ref = {"sha": sha, "short sha": sha[:10]}.get(how, how)
        assert (await apply_ref(bench.mirror, await bench.mirror.head("main"), ref)).summary.files

    async def test_binary_files_are_fine_here(self, bench: Bench) -> None:
        bench.work.branch("logo", {"logo.png": b"\x89PNG\0\0"})
        await bench.mirror.fetch()
        applied = await apply_ref(bench.mirror, await bench.mirror.head("main"), "logo")
        assert applied.summary.files[0].binary

    async def test_conflict(self, bench: Bench) -> None:
        bench.work.branch("fix", FIX)
        bench.work.commit({"app.py": "def add(a, b):\n    return sum((a, b))\n"})
        await bench.mirror.fetch()
        with pytest.raises(StageFailed, match=r"app\.py") as refused:
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "fix")
        assert refused.value.code == "patch_does_not_apply"

    async def test_already_merged(self, bench: Bench) -> None:
        with pytest.raises(StageFailed) as refused:
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "main")
        assert refused.value.code == "patch_empty"

    async def test_no_common_history(self, bench: Bench) -> None:
        bench.work.git("checkout", "-q", "--orphan", "alien")
        bench.work.commit({"app.py": "x\n"})
        bench.work.git("checkout", "-q", "main")
        await bench.mirror.fetch()
        with pytest.raises(StageFailed) as refused:
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "alien")
        assert refused.value.code == "patch_does_not_apply"

    async def test_link_out_of_the_tree(self, bench: Bench) -> None:
        bench.work.git("checkout", "-q", "-b", "evil")
        (bench.work.path / "etc").symlink_to("/etc")
        bench.work.commit({})
        bench.work.git("checkout", "-q", "main")
        await bench.mirror.fetch()
        with pytest.raises(StageFailed) as refused:
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "evil")
        assert refused.value.code == "patch_symlink_escape"

    @pytest.mark.parametrize(
        ("mode", "name"),
        [
            ("120000", ".gitmodules"),
            ("120000", ".GitModules"),
            ("120000", ".git\u200cmodules"),
            ("120000", "gitmod~1"),
            ("120000", "GI7EBA~1"),
            ("100644", ".g\u200cit"),
            ("100644", "git~1"),
        ],
    )
    async def test_what_git_checks_out_nowhere(self, bench: Bench, mode: str, name: str) -> None:
        bench.work.odd_branch("odd", mode, name)
        await bench.mirror.fetch()
        with pytest.raises(StageFailed, match=re.escape(name.encode("unicode_escape").decode())) as refused:
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "odd")
        assert refused.value.code == "patch_escapes"

    async def test_a_file_of_submodules_is_a_file(self, bench: Bench) -> None:
        bench.work.odd_branch("odd", "100644", ".gitmodules")
        await bench.mirror.fetch()
        assert (await apply_ref(bench.mirror, await bench.mirror.head("main"), "odd")).summary.paths == (".gitmodules",)

    async def test_what_was_there_before_is_not_the_candidates_fault_and_may_go(self, bench: Bench) -> None:
        diff, tree = bench.work.diff_of(FIX), bench.work.sha("main^{tree}")
        base = bench.work.odd_branch("odd", "120000", ".git\u200cmodules")
        gone = bench.work.git("commit-tree", tree, "-p", base, "-m", "Gone").decode().strip()
        bench.work.git("update-ref", "refs/heads/gone", gone)
        await bench.mirror.fetch()
        assert (await apply_diff(bench.mirror, base, diff)).summary.files
        assert (await apply_ref(bench.mirror, base, "gone")).summary.paths == (".git\u200cmodules",)

    @pytest.mark.parametrize("length", [40, 64])
    @pytest.mark.parametrize("spelled", [str.lower, str.upper])
    async def test_a_whole_sha_is_no_name(self, bench: Bench, length: int, spelled: Callable[[str], str]) -> None:
        """Somebody else gives a branch, and a tag, the name of the commit that a mission asks for."""
        sha = bench.work.branch("fix", FIX)
        name = spelled(sha.ljust(length, "a"))
        evil = bench.work.branch("evil", {"app.py": "evil\n"})
        for kind in ("heads", "tags"):
            bench.work.git("update-ref", f"refs/{kind}/{name}", evil)
        await bench.mirror.fetch()
        base = await bench.mirror.head("main")
        assert (await apply_ref(bench.mirror, base, f"refs/heads/{name}")).source == evil
        if length == 64:
            with pytest.raises(NotFound):
                await apply_ref(bench.mirror, base, name)
        else:
            assert (await apply_ref(bench.mirror, base, name)).source == sha

    async def test_unknown(self, bench: Bench) -> None:
        with pytest.raises(NotFound):
            await apply_ref(bench.mirror, await bench.mirror.head("main"), "nope")


class TestCommits:
    async def test_same_input_same_commit_on_every_host(self, bench: Bench) -> None:
        base, first = await bench.topic()
        again = (await bench.topic())[1]
        other = bench.second_mirror()
        await other.fetch()
        applied = await apply_diff(other, base, bench.work.diff_of(FIX))
        elsewhere = await commit_patch(other, applied, MISSION, bench.key, message="Add, do not subtract", date=DATE)
        assert first == again == elsewhere

    async def test_git_accepts_the_signature_and_reads_the_trailers(self, bench: Bench) -> None:
        base, sha = await bench.topic()
        signers = {"gpg.ssh.allowedSignersFile": str(bench.key.allowed_signers)}
        verified = await bench.mirror.git("verify-commit", sha, config=signers)
        assert bench.key.key_id in verified.err
        shown = await bench.mirror.git("log", "-1", "--format=%P|%an|%cn|%ad|%s|%(trailers:only)", "--date=raw", sha)
        assert shown.text.splitlines() == [
            f"{base}|Mission Control|Mission Control|1736510400 +0000|Add, do not subtract|"
            "Mission-Id: mission_20250110_001",
            "Mission-Workspace: acme",
        ]

    async def test_the_commit_and_its_base_are_kept(self, bench: Bench) -> None:
        bench.mirror = Mirror(bench.mirror.path, bench.mirror.url, bench.git, bench.folder / "own")
        bench.work.commit({"gone.txt": "soon\n"})
        base, sha = await bench.topic()
        bench.work.git("reset", "-q", "--hard", "HEAD^")
        await bench.mirror.fetch()
        await bench.mirror.git("gc", "--prune=now", "--quiet")
        await bench.mirror.require(base)
        await bench.mirror.require(sha)

    @pytest.mark.parametrize(
        ("author", "expected"),
        [
            ("Grace Hopper <grace@example.com>", "Grace Hopper <grace@example.com>"),
            ("agent-7", "agent-7 <mission-control@localhost>"),
            ("<>", "Mission Control <mission-control@localhost>"),
            ("Eve\nMission-Id: x <e@x>", "Eve Mission-Id: x <e@x>"),
            (" ... ", "Mission Control <mission-control@localhost>"),
        ],
    )
    async def test_author(self, bench: Bench, author: str, expected: str) -> None:
        applied = await apply(bench, bench.work.diff_of(FIX))
        sha = await commit_patch(bench.mirror, applied, MISSION, bench.key, message="x", date=DATE, author=author)
        shown = await bench.mirror.git("log", "-1", "--format=%an <%ae>", sha)
        assert shown.text == expected

    async def test_message_cannot_forge_trailers(self, bench: Bench) -> None:
        applied = await apply(bench, bench.work.diff_of(FIX))
        message = "Fix\0\n\nMission-Id: mission_20250110_999\n\n"
        sha = await commit_patch(bench.mirror, applied, MISSION, bench.key, message=message, date=DATE)
        shown = await bench.mirror.git("log", "-1", "--format=%(trailers:key=Mission-Id,valueonly)", sha)
        assert shown.text == MISSION.mission_id


class TestCommitOnly:
    async def test_base_with_the_test_files_of_the_patch(self, bench: Bench) -> None:
        files: dict[str, str | None] = {**FIX, "tests/new/test_b.py": "x\n", "lib/util.py": None}
        files["tests/util.py"] = bench.work.show("HEAD", "lib/util.py").decode()
        applied = await apply(bench, bench.work.diff_of(files))
        head = await commit_patch(bench.mirror, applied, MISSION, bench.key, message="x", date=DATE)
        tests, _ = split_test_files(applied.summary)
        before = await commit_only(bench.mirror, applied.base, head, tests, MISSION)
        assert before == await commit_only(bench.mirror, applied.base, head, tests, MISSION)
        changed = await bench.mirror.changed_files(applied.base, before)
        assert changed.paths == ("tests/new/test_b.py", "tests/test_app.py", "tests/util.py")
        assert await bench.mirror.read_file(before, "tests/test_app.py", 999) == FIX["tests/test_app.py"].encode()
        assert await bench.mirror.read_file(before, "lib/util.py", 9999) is not None

    async def test_test_folder_that_becomes_a_file(self, bench: Bench) -> None:
        diff = bench.work.diff_of({"tests/test_app.py": None}) + b"--- /dev/null\n+++ b/tests\n@@ -0,0 +1 @@\n+x\n"
        applied = await apply(bench, diff)
        before = await commit_only(bench.mirror, applied.base, applied.tree, applied.summary.paths, MISSION)
        assert await bench.mirror.read_file(before, "tests", 999) == b"x\n"
        assert not list(bench.mirror.path.glob("scratch-*"))

    async def test_no_test_files(self, bench: Bench) -> None:
        base, head = await bench.topic()
        before = await commit_only(bench.mirror, base, head, [], MISSION)
        assert not (await bench.mirror.changed_files(base, before)).files
