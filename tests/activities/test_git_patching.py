"""Diffs apply to a base, or say why not; every git here is real."""

import asyncio
import os
import random
import threading
from pathlib import Path

import pytest

from activities.workbench import mirrors, patching
from activities.workbench.git import GitError
from activities.workbench.patching import Applied, apply_diff
from activities.workbench.plumbing import own_index
from models.domain.errors import StageFailed, WorkbenchLost
from models.domain.patches import ChangeKind, inspect_patch
from tests.fixtures.workbenches import FIX, Bench, apply, content, fetched


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return await fetched(tmp_path)


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
