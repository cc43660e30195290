"""Building blocks on the mirror's objects, without a worktree: three-way merges, a passing index, a tree's links."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from activities.workbench.mirrors import Mirror

_LINK_MODE = b"120000"
_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "nobody"), ("EMAIL", "nobody@localhost"), ("DATE", "@0 +0000"))
}


@dataclass(frozen=True)
class MergedTree:
    """What a three-way merge makes; with `conflicts` (paths) the tree is not fit for use."""

    tree: str
    conflicts: tuple[str, ...] = ()


async def merge_trees(mirror: Mirror, ours: str, theirs: str) -> MergedTree:
    """Merge two commits from where they parted; changes nothing but the store of objects.

    Raises:
        GitError: also when they have no history in common.
    """
    flags = ("--write-tree", "-z", "--name-only", "--no-messages")
    merged = await mirror.make("merge-tree", *flags, ours, theirs, ok=(0, 1))
    tree, *paths = merged.out.decode("utf-8", "backslashreplace").rstrip("\0").split("\0")
    return MergedTree(tree.strip(), tuple(path for path in paths if path) if merged.code else ())


async def undo_tree(mirror: Mirror, head: str, change: str) -> MergedTree:
    """Take what the commit `change` did to its first parent out of `head`, and leave all else.

    A revert is a three-way merge whose ancestor is the change. Git finds ancestors only by history, so the three trees
    are given one: commits that nothing refers to.
    """
    ancestor = await _bare_commit(mirror, f"{change}^{{tree}}")
    ours = await _bare_commit(mirror, f"{head}^{{tree}}", ancestor)
    theirs = await _bare_commit(mirror, f"{change}^1^{{tree}}", ancestor)
    return await merge_trees(mirror, ours, theirs)


async def links_of(mirror: Mirror, tree: str) -> dict[str, str]:
    """Every symbolic link of a tree: path to target."""
    listed = await mirror.git("ls-tree", "-r", "-z", "--full-tree", tree)
    entries = (entry.partition(b"\t") for entry in listed.out.split(b"\0") if entry.startswith(_LINK_MODE))
    blobs = {_text(path): facts.split(b" ")[2] for facts, _, path in entries}
    contents = await _contents(mirror, list(blobs.values()))
    return {path: _text(content) for path, content in zip(blobs, contents, strict=True)}


@contextmanager
def own_index(mirror: Mirror) -> Iterator[dict[str, str]]:
    """An index nobody else uses, as the environment that makes git use it."""
    path = mirror.scratch_index()
    try:
        yield {"GIT_INDEX_FILE": str(path)}
    finally:
        path.unlink(missing_ok=True)


async def _bare_commit(mirror: Mirror, tree: str, *parents: str) -> str:
    flags = [part for parent in parents for part in ("-p", parent)]
    return (await mirror.make("commit-tree", *flags, "-m", "merge base", tree, env=_NOBODY)).text


async def _contents(mirror: Mirror, blobs: Sequence[bytes]) -> list[bytes]:
    """Read many objects with one command: each answer is a head line with the size, the bytes, a newline."""
    if not blobs:
        return []
    answer = (await mirror.git("cat-file", "--batch", stdin=b"\n".join(blobs) + b"\n")).out
    contents, at = [], 0
    for _ in blobs:
        end_of_head = answer.index(b"\n", at)
        size = int(answer[at:end_of_head].split(b" ")[2])
        at = end_of_head + 1 + size + 1
        contents.append(answer[at - 1 - size : at - 1])
    return contents


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
