"""Candidates become commits, or say why not; every git here is real."""

import asyncio
import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from activities.workbench import mirrors, patching
from activities.workbench.git import GitError
from activities.workbench.mirrors import Mirror
from activities.workbench.patching import Applied, apply_diff, apply_ref, commit_only, commit_patch
from activities.workbench.plumbing import own_index
from models.domain.errors import NotFound, StageFailed, WorkbenchLost
from models.domain.law import split_test_files
from models.domain.patches import ChangeKind, inspect_patch
from tests.fixtures.workbenches import DATE, FIX, MISSION, Bench, make_bench


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    bench = make_bench(tmp_path)
    await bench.mirror.fetch()
    return bench


async def apply(bench: Bench, diff: bytes | str) -> Applied:
    return await apply_diff(bench.mirror, await bench.mirror.head("main"), diff)


async def content(bench: Bench, applied: Applied, path: str) -> bytes | None:
    return await bench.mirror.read_file(applied.tree, path, 1_000_000)


async def refusal(bench: Bench, diff: bytes | str) -> StageFailed:
    with pytest.raises(StageFailed) as refused:
        await apply(bench, diff)
    assert not list(bench.mirror.path.glob("scratch-*"))
    return refused.value


class TestApplyDiff:
    async def test_change(self, bench: Bench) -> None:
        applied = await apply(bench, bench.work.diff_of(FIX))
        assert [(f.path, f.kind, f.added, f.removed) for f in applied.summary.files] == [
            ("app.py", ChangeKind.MODIFIED, 1, 1),
            ("tests/test_app.py", ChangeKind.MODIFIED, 1, 1),
        ]
        assert await content(bench, applied, "app.py") == FIX["app.py"].encode()

    async def test_missing_newline_at_the_end_of_the_patch(self, bench: Bench) -> None:
        diff = bench.work.diff_of({"app.py": FIX["app.py"]})
        assert await apply(bench, diff.rstrip(b"\n")) == await apply(bench, diff)

    async def test_file_without_newline_at_its_end(self, bench: Bench) -> None:
        applied = await apply(bench, bench.work.diff_of({"app.py": "x = 1"}))
        assert await content(bench, applied, "app.py") == b"x = 1"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("crlf.txt", b"one\r\ntwo\r\n"),
            ("latin.txt", b"caf\xe9\n"),
            ("with space.txt", b"x\n"),
            ("ünïcode/ñ.txt", b"x\n"),
            ('quo"te.txt', b"\x0c\n\xe2\x80\xa8\n"),
        ],
    )
    async def test_names_and_contents(self, bench: Bench, name: str, text: bytes) -> None:
        diff = bench.work.diff_of({name: text}, "--text")
        assert inspect_patch(diff).paths == (name,)
        applied = await apply(bench, diff)
        assert applied.summary.paths == (name,)
        assert await content(bench, applied, name) == text

    async def test_crlf_file_changed(self, bench: Bench) -> None:
        bench.work.commit({"dos.txt": b"one\r\ntwo\r\n"})
        await bench.mirror.fetch()
        applied = await apply(bench, bench.work.diff_of({"dos.txt": b"one\r\nTWO\r\n"}))
        assert await content(bench, applied, "dos.txt") == b"one\r\nTWO\r\n"

    async def test_rename_and_mode(self, bench: Bench) -> None:
        old = bench.work.show("HEAD", "lib/util.py")
        (bench.work.path / "app.py").chmod(0o755)
        diff = bench.work.diff_of({"lib/util.py": None, "lib/new util.py": old}, "-M")
        applied = await apply(bench, diff)
        assert [(f.path, f.old_path, f.kind, f.mode) for f in applied.summary.files] == [
            ("app.py", None, ChangeKind.MODIFIED, "100755"),
            ("lib/new util.py", "lib/util.py", ChangeKind.RENAMED, "100644"),
        ]

    async def test_does_not_apply(self, bench: Bench) -> None:
        diff = bench.work.diff_of({"app.py": FIX["app.py"]}).replace(b"return a - b", b"return a * b")
        refused = await refusal(bench, diff)
        assert refused.code == "patch_does_not_apply"
        assert "app.py:1; app.py: patch does not apply" in refused.message

    async def test_file_is_not_there(self, bench: Bench) -> None:
        diff = bench.work.diff_of({"app.py": FIX["app.py"]}).replace(b"app.py", b"gone.py")
        assert (await refusal(bench, diff)).code == "patch_does_not_apply"

    async def test_already_applied(self, bench: Bench) -> None:
        diff = bench.work.diff_of(FIX)
        bench.work.commit(FIX)
        await bench.mirror.fetch()
        assert (await refusal(bench, diff)).code == "patch_does_not_apply"

    async def test_changes_nothing(self, bench: Bench) -> None:
        diff = "--- a/app.py\n+++ b/app.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a - b\n"
        assert (await refusal(bench, diff)).code == "patch_empty"

    async def test_empty(self, bench: Bench) -> None:
        assert (await refusal(bench, "\n")).code == "patch_empty"

    async def test_binary(self, bench: Bench) -> None:
        diff = bench.work.diff_of({"logo.png": b"\x89PNG\0\0"}, "--binary")
        assert (await refusal(bench, diff)).code == "patch_binary"

    @pytest.mark.parametrize("path", ["../evil", ".git/hooks/pre-commit", ".GIT/config"])
    async def test_out_of_the_tree(self, bench: Bench, path: str) -> None:
        diff = f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        assert (await refusal(bench, diff)).code == "patch_escapes"

    async def test_through_an_existing_link(self, bench: Bench) -> None:
        (bench.work.path / "here").symlink_to("lib")
        bench.work.commit({})
        await bench.mirror.fetch()
        diff = "--- /dev/null\n+++ b/here/new.py\n@@ -0,0 +1 @@\n+x\n"
        assert (await refusal(bench, diff)).code == "patch_escapes"

    async def test_through_a_link_of_the_same_patch(self, bench: Bench) -> None:
        link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+lib\n"
        diff = link + "\\ No newline at end of file\n--- /dev/null\n+++ b/l/x\n@@ -0,0 +1 @@\n+x\n"
        assert (await refusal(bench, diff)).code in ("patch_escapes", "patch_does_not_apply")

    async def test_link_that_leaves_by_another_link(self, bench: Bench) -> None:
        (bench.work.path / "lib" / "self").symlink_to("..")
        bench.work.commit({})
        await bench.mirror.fetch()
        (bench.work.path / "out").symlink_to("lib/self/../secret")
        diff = bench.work.diff_of({})
        assert inspect_patch(diff).files[0].is_symlink
        assert (await refusal(bench, diff)).code == "patch_symlink_escape"

    async def test_link_inside(self, bench: Bench) -> None:
        (bench.work.path / "alias.py").symlink_to("lib/util.py")
        applied = await apply(bench, bench.work.diff_of({}))
        assert applied.summary.files[0].is_symlink

    async def test_file_that_is_not_there_and_is_named_like_a_failure(self, bench: Bench) -> None:
        diff = "--- a/fatal: x\n+++ b/fatal: x\n@@ -1 +1 @@\n-a\n+b\n"
        assert (await refusal(bench, diff)).code == "patch_does_not_apply"

    async def test_a_long_binary_is_named_by_its_content(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mirrors, "MAX_DIFF_BYTES", 10_000)
        bench.work.commit({"logo.png": random.Random(1).randbytes(20_000)})
        await bench.mirror.fetch()
        diff = "diff --git a/logo.png b/art.png\nsimilarity index 100%\nrename from logo.png\nrename to art.png\n"
        assert len((await apply(bench, diff)).patch_id) == 64

    async def test_base_that_is_not_here(self, bench: Bench) -> None:
        with pytest.raises(WorkbenchLost):
            await apply_diff(bench.mirror, "1" * 40, bench.work.diff_of(FIX))

    async def test_one_that_takes_too_long_is_not_tried_for_ever(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        diff = bench.work.diff_of(FIX)
        monkeypatch.setattr(patching, "LOCAL_SECONDS", 0.0001)
        with pytest.raises(StageFailed) as refused:
            await apply(bench, diff)
        assert refused.value.code == "patch_too_slow"

    async def test_patch_id_survives_a_moved_branch_but_not_another_indentation(self, bench: Bench) -> None:
        before = await apply(bench, bench.work.diff_of({"lib/util.py": "LINE_0 = 0\n"}))
        bench.work.commit({"other.py": "x = 1\n"})
        await bench.mirror.fetch()
        after = await apply(bench, bench.work.diff_of({"lib/util.py": "LINE_0 = 0\n"}))
        indented = await apply(bench, bench.work.diff_of({"lib/util.py": "  LINE_0 = 0\n"}))
        assert before.base != after.base
        assert before.patch_id == after.patch_id != indented.patch_id
        assert len(before.patch_id) == 64

    async def test_it_is_another_where_the_same_lines_fit_elsewhere_in_a_file(self, bench: Bench) -> None:
        """What was approved of one block must not be merged into another one that reads the same."""
        block = (
            "".join(f"  key{n}: {n}\n" for n in range(8))
            + "  verify: true\n"
            + "".join(f"  z{n}: 1\n" for n in range(9))
        )
        config = f"production:\n{block}staging:\n{block}"
        bench.work.commit({"config.yaml": config})
        await bench.mirror.fetch()
        diff = bench.work.diff_of({"config.yaml": f"production:\n{block}staging:\n{block.replace('true', 'false')}"})
        before = await apply(bench, diff)
        bench.work.commit({"config.yaml": "".join(f"# {n}\n" for n in range(19)) + config})
        await bench.mirror.fetch()
        assert (await apply(bench, diff)).patch_id != before.patch_id


class TestBesideAFetch:
    """Another mission may fetch into the mirror at any moment."""

    async def test_what_is_in_use_stays_and_what_is_old_goes(self, bench: Bench) -> None:
        with own_index(bench.mirror) as env:
            used = Path(env["GIT_INDEX_FILE"])
            for file in (used, used.with_name(f"{used.name}.lock")):
                file.touch()
            old = used.with_name("scratch-old.lock")
            old.touch()
            os.utime(old, (0, 0))
            await bench.mirror.fetch()
            assert sorted(bench.mirror.path.glob("scratch-*")) == [used, used.with_name(f"{used.name}.lock")]

    async def test_an_index_that_is_lost_is_not_the_patchs_fault(self, bench: Bench) -> None:
        """Take git's locks on it away as fast as we can: each try succeeds, or may be repeated."""
        diff, stop = bench.work.diff_of(FIX), threading.Event()

        def disturb() -> None:
            while not stop.is_set():
                for lock in bench.mirror.path.glob("scratch-*.lock"):
                    lock.unlink(missing_ok=True)

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            ends = await asyncio.gather(*(apply(bench, diff) for _ in range(20)), return_exceptions=True)
        finally:
            stop.set()
            thread.join()
        assert {type(end) for end in ends} <= {Applied, GitError}


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
