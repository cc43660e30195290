"""What is read from a patch, what is refused, and what asks a human."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import InvalidInput
from models.domain.patches import (
    MAX_PATCH_BYTES,
    MAX_PATH,
    ChangeKind,
    FileChange,
    PatchSummary,
    check_changes,
    check_links,
    inspect_patch,
    leaves_tree,
    parse_changes,
)

HUNK = "@@ -1 +1 @@\n-old\n+new\n"


def plain(old: str, new: str, hunk: str = HUNK) -> str:
    return f"--- {old}\n+++ {new}\n{hunk}"


def code_of(patch: str | bytes) -> str:
    with pytest.raises(InvalidInput) as refused:
        inspect_patch(patch)
    return refused.value.code


def outcome(patch: str | bytes) -> tuple[set[str], str]:
    """The paths of a patch that is taken, or the code of its refusal."""
    try:
        return set(inspect_patch(patch).paths), ""
    except InvalidInput as refused:
        return set(), refused.code


class TestHugeNames:
    @pytest.mark.parametrize("name", ["../" + "y" * 3_000_000, "a\x07" + "y" * 3_000_000])
    def test_a_huge_name_is_not_echoed(self, name: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            inspect_patch(plain("/dev/null", f"b/{name}", "@@ -0,0 +1 @@\n+a\n"))
        assert len(str(refused.value)) < 5000
        assert refused.value.message.endswith(("into .git.", "control characters.")), "what is wrong stays"


class TestReading:
    def test_plain_unified_diff(self) -> None:
        (file,) = inspect_patch(plain("a/src/app.py\t2024-01-01", "b/src/app.py\t2024-01-02")).files
        assert (file.path, file.kind, file.added, file.removed) == ("src/app.py", ChangeKind.MODIFIED, 1, 1)

    def test_added_and_deleted_files(self) -> None:
        patch = plain("/dev/null", "b/new.py", "@@ -0,0 +1,2 @@\n+a\n+b\n") + plain(
            "a/old.py", "/dev/null", "@@ -1 +0,0 @@\n-a\n"
        )
        summary = inspect_patch(patch)
        assert [(f.path, f.kind) for f in summary.files] == [
            ("new.py", ChangeKind.ADDED),
            ("old.py", ChangeKind.DELETED),
        ]
        assert (summary.added, summary.removed) == (2, 1)

    def test_rename_names_both_paths(self) -> None:
        patch = "diff --git a/a b.py b/c d.py\nsimilarity index 100%\nrename from a b.py\nrename to c d.py\n"
        summary = inspect_patch(patch)
        assert summary.files[0].kind is ChangeKind.RENAMED
        assert summary.paths == ("a b.py", "c d.py")

    def test_mode_change_alone(self) -> None:
        patch = "diff --git a/my tool b/my tool\nold mode 100644\nnew mode 100755\n"
        (file,) = inspect_patch(patch).files
        assert (file.path, file.old_mode, file.mode) == ("my tool", "100644", "100755")

    def test_quoted_unicode_name(self) -> None:
        name = '"a/caf\\303\\251 \\"x\\".py"'
        patch = f"diff --git {name} {name.replace('a/', 'b/', 1)}\nnew file mode 100644\nindex 000..e69de29\n"
        assert inspect_patch(patch).paths == ('café "x".py',)

    def test_mail_around_the_diff_is_skipped(self) -> None:
        patch = f"From: Ada\nSubject: --- a story\n\n---\n f | 2 +-\n\n{plain('a/f', 'b/f')}-- \n2.39.5\n"
        assert inspect_patch(patch).paths == ("f",)

    def test_content_that_looks_like_a_header_is_content(self) -> None:
        hunk = "@@ -1,2 +1,2 @@\n--- a/../x\n-- y\n+++ b/../x\n++ y\n"
        assert inspect_patch(plain("a/f", "b/f", hunk)).paths == ("f",)

    def test_missing_newline_at_the_end(self) -> None:
        assert inspect_patch(plain("a/f", "b/f").rstrip("\n")).added == 1

    def test_content_in_any_encoding(self) -> None:
        patch = plain("a/f", "b/f").encode().replace(b"new", b"n\xe9w\r")
        assert inspect_patch(patch).added == 1

    @given(st.binary(max_size=300) | st.text(max_size=300))
    def test_any_input_is_read_or_refused(self, patch: bytes | str) -> None:
        paths, code = outcome(patch)
        assert bool(paths) != code.startswith("patch_")

    @given(st.lists(st.sampled_from(["diff --git a/x b/x", "--- a/x", "+++ b/x", "@@ -1 +1 @@", "-a", "+b", " ", ""])))
    def test_any_order_of_real_lines_is_read_or_refused(self, lines: list[str]) -> None:
        assert outcome("\n".join(lines)) in (({"x"}, ""), (set(), "patch_empty"), (set(), "patch_not_a_diff"))


class TestRefusals:
    @pytest.mark.parametrize("patch", ["", "\n \n", b""])
    def test_empty(self, patch: str | bytes) -> None:
        assert code_of(patch) == "patch_empty"

    def test_too_large(self) -> None:
        assert code_of(b"x" * (MAX_PATCH_BYTES + 1)) == "patch_too_large"

    @pytest.mark.parametrize(("letters", "code"), [(MAX_PATH, ""), (MAX_PATH + 1, "patch_bad_path")])
    def test_a_path_longer_than_any_is(self, letters: int, code: str) -> None:
        path = ("a/" * letters)[: letters - 1] + "f"
        diff = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n"
        assert outcome(diff)[1] == code

    @pytest.mark.parametrize(
        "patch",
        [
            "hello",
            plain("a/f", "b/f", "@@ -1,9 +1 @@\n-old\n+new\n"),
            plain("a/f", "b/f", "@@ -1 +1 @@\n-old\nnew\n"),
            plain("a/f", "b/f", "@@ -1,2 @@\n"),
            plain("/dev/null", "/dev/null"),
            plain("a/f", "b/f").replace("\n", "\r\n"),
            "diff --git a/f b/g h\nold mode 100644\nnew mode 100755\n",
            "\udcff",
        ],
    )
    def test_not_a_diff(self, patch: str) -> None:
        assert code_of(patch) == "patch_not_a_diff"

    @pytest.mark.parametrize(
        "path",
        [
            "../x",
            "a/../../x",
            "./x",
            "a//x",
            ".git/config",
            "sub/.GIT/hooks/x",
            ".git./config",
            ".git /config",
            "git~1/config",
            ".git::$INDEX_ALLOCATION/x",
            ".g\u200cit/config",
            "..\\x",
            "/etc/passwd",
        ],
    )
    def test_paths_out_of_the_tree(self, path: str) -> None:
        assert code_of(plain(f"a/{path}", f"b/{path}")) == "patch_escapes"
        assert code_of(plain("/dev/null", f"b/{path}", "@@ -0,0 +1 @@\n+x\n")) == "patch_escapes"

    def test_absolute_path_without_prefix(self) -> None:
        assert code_of(plain("/etc/passwd", "/etc/passwd")) == "patch_escapes"

    def test_rename_out_of_the_tree(self) -> None:
        assert code_of("diff --git a/x b/x\nrename from x\nrename to .git/x\n") == "patch_escapes"

    def test_nul_in_a_quoted_name(self) -> None:
        assert code_of(plain('"a/x\\000y"', '"b/x\\000y"')) == "patch_escapes"

    @pytest.mark.parametrize("name", ['"b/x\\ny"', '"b/\\377"'])
    def test_names_nobody_can_show(self, name: str) -> None:
        assert code_of(plain("/dev/null", name, "@@ -0,0 +1 @@\n+x\n")) == "patch_bad_path"

    @pytest.mark.parametrize("line", ["GIT binary patch", "Binary files a/x and b/x differ"])
    def test_binary(self, line: str) -> None:
        assert code_of(f"diff --git a/x b/x\nindex 111..222 100644\n{line}\n") == "patch_binary"

    def test_submodule(self) -> None:
        patch = f"diff --git a/lib b/lib\nnew file mode 160000\n{plain('/dev/null', 'b/lib', '@@ -0,0 +1 @@')}\n+S\n"
        assert code_of(patch) == "patch_submodule"

    @pytest.mark.parametrize("target", ["/etc", "../out", "x/../../out"])
    def test_link_out_of_the_tree(self, target: str) -> None:
        hunk = f"@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
        patch = f"diff --git a/l b/l\nnew file mode 120000\n{plain('/dev/null', 'b/l', hunk)}"
        assert code_of(patch) == "patch_symlink_escape"

    def test_link_inside_the_tree(self) -> None:
        hunk = "@@ -0,0 +1 @@\n+../f\n\\ No newline at end of file\n"
        patch = f"diff --git a/d/l b/d/l\nnew file mode 120000\n{plain('/dev/null', 'b/d/l', hunk)}"
        assert inspect_patch(patch).files[0].is_symlink

    def test_ordinary_names_near_the_forbidden_ones(self) -> None:
        check_changes(FileChange(path, ChangeKind.ADDED) for path in (".github/x", ".gitignore", "a..b", "...", "git"))


class TestGitsOwnAccount:
    def test_raw_and_numstat(self) -> None:
        blob = "1" * 40
        raw = f":100644 100644 {blob} {blob} M\0a b\0:100644 000000 {blob} {blob} D\0gone\0"
        raw += f":100644 100755 {blob} {blob} R090\0old\0new\0"
        summary = PatchSummary(parse_changes(f"{raw}1\t2\ta b\0-\t-\tgone\0003\t4\t\0old\0new\0".encode()))
        assert summary.paths == ("a b", "gone", "old", "new")
        assert [(f.kind, f.added, f.removed) for f in summary.files] == [
            (ChangeKind.MODIFIED, 1, 2),
            (ChangeKind.DELETED, 0, 0),
            (ChangeKind.RENAMED, 3, 4),
        ]
        assert summary.files[1].binary
        assert (summary.files[2].old_mode, summary.files[2].mode) == ("100644", "100755")

    def test_name_that_is_not_utf8(self) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_changes(b":000000 100644 0 1 A\0\xff\x000\t0\t\xff\0")
        assert refused.value.code == "patch_bad_path"


STEPS = st.lists(st.sampled_from(["..", ".", "d", "e", "l", "m"]), min_size=1, max_size=6).map("/".join)


class TestLinks:
    def test_a_link_through_another_link(self) -> None:
        links = {"d": ".", "a": "d/../secret"}
        assert not leaves_tree("a", links["a"])
        assert leaves_tree("a", links["a"], links)

    @pytest.mark.parametrize("target", [".git/hooks", "d/../.git/config", "./.GIT"])
    def test_a_link_into_the_folder_of_git(self, target: str) -> None:
        assert leaves_tree("a", target)

    def test_an_old_escape_is_not_blamed_on_the_patch(self) -> None:
        check_links({"old": "/etc"}, {"old": "/etc", "new": "old2"})

    def test_a_changed_link_is(self) -> None:
        with pytest.raises(InvalidInput) as refused:
            check_links({"old": "/etc"}, {"old": "/usr"})
        assert refused.value.code == "patch_symlink_escape"

    @given(first=STEPS, second=STEPS)
    def test_where_the_kernel_ends_outside_so_do_we(self, first: str, second: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            tree = Path(temporary).resolve() / "above" / "tree"
            (tree / "d" / "e").mkdir(parents=True)
            (tree / "e").mkdir()
            links = {"l": first, "d/m": second}
            for path, target in links.items():
                (tree / path).symlink_to(target)
            for path, target in links.items():
                real = _follow(tree / path)
                if real is not None:
                    assert leaves_tree(path, target, links) >= (not real.is_relative_to(tree))


def _follow(link: Path) -> Path | None:
    try:
        return Path(os.path.realpath(link, strict=True))
    except OSError:
        return None
