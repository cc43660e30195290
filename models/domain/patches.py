"""What a patch changes, and what it must never change; `law.py` says which changes ask a human.

A patch is read twice. `inspect_patch` reads the text somebody sent, so that bad input is refused at the door. What git
made of it is read again from git's own list of changes (`parse_changes`) and held to the same rules (`check_changes`):
the verdict never rests on this module reading a diff exactly as git does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from models.domain.diffs import RawFile, read_diff
from models.domain.errors import InvalidInput

MAX_PATCH_BYTES = 16 * 1024 * 1024
MAX_PATH = 1_000
"""Characters of a file's path, and of a link's target: each is compared with hundreds of patterns, or walked."""

_SYMLINK, _SUBMODULE = "120000", "160000"
_GIT_FOLDER = re.compile(r"(\.git|git~\d+)", re.IGNORECASE)
_IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_MAX_LINK_HOPS = 40


class ChangeKind(StrEnum):
    """What happens to a file."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    COPIED = "copied"


@dataclass(frozen=True)
class FileChange:
    """One file of a patch. `mode` is git's octal mode after the change, "" where the patch does not say or deletes."""

    path: str
    kind: ChangeKind
    added: int = 0
    removed: int = 0
    old_path: str | None = None
    mode: str = ""
    old_mode: str = ""
    binary: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that differs after the change: a rename has two, a copy leaves its source alone."""
        return (self.old_path, self.path) if self.kind is ChangeKind.RENAMED and self.old_path else (self.path,)

    @property
    def is_new(self) -> bool:
        """Whether `path` was not there before."""
        return self.kind not in (ChangeKind.MODIFIED, ChangeKind.DELETED)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link after the change."""
        return self.mode == _SYMLINK


@dataclass(frozen=True)
class PatchSummary:
    """The files a patch changes."""

    files: tuple[FileChange, ...]

    @property
    def added(self) -> int:
        """Lines added in all files."""
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        """Lines removed in all files."""
        return sum(file.removed for file in self.files)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that differs, both names of renamed files, in order and once."""
        return tuple(dict.fromkeys(path for file in self.files for path in file.paths))


def inspect_patch(diff: bytes | str) -> PatchSummary:
    """Read a unified diff as `git apply` would take it, and refuse what can never be applied safely.

    Raises:
        InvalidInput: `patch_empty`, `patch_too_large` (over 16 MiB), `patch_not_a_diff`, `patch_bad_path`,
            `patch_escapes`, `patch_symlink_escape`, `patch_binary` or `patch_submodule`.
    """
    data = _as_bytes(diff)
    if len(data) > MAX_PATCH_BYTES:
        raise InvalidInput("patch_too_large", f"The patch has {len(data)} bytes; {MAX_PATCH_BYTES} are allowed.")
    if not data.strip():
        raise InvalidInput("patch_empty", "The patch is empty.")
    raw_files = read_diff(data)
    files = tuple(_change_of(raw) for raw in raw_files)
    check_changes(files)
    _refuse_binary(files)
    for file, raw in zip(files, raw_files, strict=True):
        if file.is_symlink and raw.added_text and leaves_tree(file.path, _decode(raw.added_text, "patch_bad_path")):
            raise _symlink_escape([file.path])
    return PatchSummary(files)


def check_changes(files: Iterable[FileChange]) -> None:
    """Hold changed paths and modes to the rules.

    Raises:
        InvalidInput: `patch_escapes`, `patch_bad_path` or `patch_submodule`.
    """
    for file in files:
        for path in {file.path, file.old_path or file.path}:
            _check_path(path)
        if _SUBMODULE in (file.mode, file.old_mode):
            raise InvalidInput("patch_submodule", f"The patch changes the submodule {file.path!r}; send only files.")


def parse_changes(data: bytes) -> tuple[FileChange, ...]:
    """Read the output of `git diff-tree -r -z --raw --numstat`.

    Raises:
        InvalidInput: `patch_bad_path` for a file name that is not UTF-8.
    """
    tokens = iter(_decode(data, "patch_bad_path").split("\0"))
    raw: list[tuple[list[str], list[str]]] = []
    counts: dict[str, tuple[str, str]] = {}
    for token in tokens:
        if token.startswith(":"):
            fields = token[1:].split(" ")
            raw.append((fields, [next(tokens) for _ in range(2 if fields[4][0] in "RC" else 1)]))
        elif token:
            added, removed, path = token.split("\t", 2)
            counts[path or [next(tokens), next(tokens)][1]] = (added, removed)
    return tuple(_change(fields, paths, counts.get(paths[-1], ("0", "0"))) for fields, paths in raw)


def leaves_tree(path: str, target: str, links: Mapping[str, str] | None = None) -> bool:
    """Whether the symbolic link at `path` leads out of its tree, followed as the kernel would.

    `links` are the tree's other links by path; a loop leads nowhere and therefore not out. Whatever is longer than
    a path may be is taken to lead out.
    """
    known = links or {}
    here = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    outside, hops = target.startswith("/") or len(target) > MAX_PATH, 0
    while ahead and not outside and hops <= _MAX_LINK_HOPS:
        step = ahead.pop()
        if step == "..":
            outside = not here
            here = here[:-1]
        elif step.casefold() == ".git":
            outside = True  # what lies there is the repository's, and no commit's
        elif step not in ("", "."):
            here = [*here, step]
            onward = known.get("/".join(here))
            if onward is not None:
                hops += 1
                outside = onward.startswith("/") or len(here) + len(onward) > MAX_PATH
                here = here[:-1]
                ahead.extend(onward.split("/")[::-1])
    return outside


def check_links(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Refuse a tree whose links (path to target) lead out of it where they did not before.

    Raises:
        InvalidInput: `patch_symlink_escape`.
    """
    escapes = {path for path, target in after.items() if leaves_tree(path, target, after)}
    known = {path for path in escapes if before.get(path) == after[path] and leaves_tree(path, before[path], before)}
    if escapes - known:
        raise _symlink_escape(sorted(escapes - known))


def _as_bytes(diff: bytes | str) -> bytes:
    if isinstance(diff, bytes):
        return diff
    try:
        return diff.encode()
    except UnicodeEncodeError:
        raise InvalidInput("patch_not_a_diff", "The patch holds characters that are not valid Unicode.") from None


def _decode(data: bytes, code: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(code, "File names must be UTF-8.") from None


def _change_of(raw: RawFile) -> FileChange:
    old = _decode(raw.old, "patch_bad_path") if raw.old is not None else None
    new = _decode(raw.new, "patch_bad_path") if raw.new is not None else None
    path = new if new is not None else old
    if path is None:
        raise InvalidInput("patch_not_a_diff", "A file of the patch has no name.")
    kind = ChangeKind(raw.kind) if raw.kind else ChangeKind.MODIFIED
    if not raw.kind and (old is None or new is None):
        kind = ChangeKind.ADDED if old is None else ChangeKind.DELETED
    moved = old if kind in (ChangeKind.RENAMED, ChangeKind.COPIED) or (old and new and old != new) else None
    return FileChange(path, kind, raw.added, raw.removed, moved, raw.mode, raw.old_mode, raw.binary)


def _change(fields: list[str], paths: list[str], counts: tuple[str, str]) -> FileChange:
    kinds = {"A": ChangeKind.ADDED, "D": ChangeKind.DELETED, "R": ChangeKind.RENAMED, "C": ChangeKind.COPIED}
    old_mode, mode = (("" if mode == "000000" else mode) for mode in fields[:2])
    binary = counts[0] == "-"
    added, removed = (0, 0) if binary else (int(counts[0]), int(counts[1]))
    kind = kinds.get(fields[4][0], ChangeKind.MODIFIED)
    return FileChange(paths[-1], kind, added, removed, paths[0] if len(paths) > 1 else None, mode, old_mode, binary)


def _check_path(path: str) -> None:
    if re.search(r"[\x01-\x1f\x7f]", path):
        raise InvalidInput("patch_bad_path", f"The file name {path!r} holds control characters.")
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(part in ("", ".", "..") or _is_git_folder(part) for part in parts):
        raise InvalidInput("patch_escapes", f"The patch may not touch {path!r}: it leads out of the tree or into .git.")
    if len(path) > MAX_PATH:
        told = f"The file name {path[:80]!r}… has {len(path)} characters; {MAX_PATH} are allowed."
        raise InvalidInput("patch_bad_path", told)


def _is_git_folder(part: str) -> bool:
    """Whether some file system would take `part` for `.git`: other case, NTFS short names and streams, HFS+ fillers."""
    plain = _IGNORED_BY_HFS.sub("", part).split(":")[0].rstrip(". ")
    return _GIT_FOLDER.fullmatch(plain) is not None


def _refuse_binary(files: Iterable[FileChange]) -> None:
    binary = [file.path for file in files if file.binary]
    if binary:
        raise InvalidInput(
            "patch_binary",
            f"The patch changes binary files ({', '.join(binary[:5])}): push them to a branch and name it as the ref.",
        )


def _symlink_escape(paths: list[str]) -> InvalidInput:
    return InvalidInput("patch_symlink_escape", f"Symbolic links lead out of the tree: {', '.join(paths[:5])}.")
