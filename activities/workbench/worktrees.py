"""The folders a mission's commands run in: one checkout for each commit it is judged at.

Each is a repository of its own that holds one commit without history, copied from the mirror. Against `git worktree`:
no metadata in the mirror that a killed process leaves behind, no lock two missions meet on, no path out of the folder.
Against `clone --shared`: no alternates, so it works where only the folder itself is mounted. Nothing done inside, even
by root, can reach the mirror. What is in it is never trusted again: once foreign commands ran there, we run no git in
it, because its configuration could then run commands as us.
"""

from dataclasses import dataclass
from pathlib import Path

from activities.workbench.git import Git, GitError
from activities.workbench.locks import exclusive
from activities.workbench.mirrors import Mirror
from activities.workbench.trees import remove_tree
from models.domain.errors import WorkbenchLost


@dataclass(frozen=True)
class Tree:
    """A checkout of `sha` at `path`."""

    path: Path
    sha: str


class Workbench:
    """A mission's folder on this host; `root` is its own and is removed whole."""

    def __init__(self, root: Path, mirror: Mirror, git: Git) -> None:
        self.root = root
        self._mirror = mirror
        self._git = git

    async def open(self, name: str, sha: str, *, fresh: bool = False) -> Tree:
        """Give the checkout `name` at `sha`: the one that is there if it was finished at this SHA, else a new one.

        Its HEAD is detached at `sha`. `fresh` wants a new one in any case, without what earlier commands left in it.

        Raises:
            WorkbenchLost: `commit_lost`, the commit is not on this host.
            GitError: the mirror cannot be read now.
        """
        tree = Tree(self.root / name, sha)
        async with exclusive(self.root) as lock:
            if fresh or not self._finished(tree):
                await self._remove(name, lock)
                await self._build_mended(tree, lock)
        return tree

    async def close(self) -> None:
        """Remove everything; safe to repeat, also after a kill in the middle."""
        await clear(self.root)

    def _marker(self, name: str) -> Path:
        """Tells which commit was checked out to the end; outside the checkout, so no command can write it."""
        return self.root / f".{name}.done"

    def _draft(self, name: str) -> Path:
        return self.root / f".{name}.new"

    def _finished(self, tree: Tree) -> bool:
        marker = self._marker(tree.path.name)
        return tree.path.is_dir() and marker.exists() and marker.read_text(encoding="utf-8") == tree.sha

    async def _remove(self, name: str, lock: int) -> None:
        self._marker(name).unlink(missing_ok=True)
        await remove_tree(self.root / name, lock)
        await remove_tree(self._draft(name), lock)

    async def _build_mended(self, tree: Tree, lock: int) -> None:
        """Build it; if that fails because the mirror is damaged, once more from a new one."""
        try:
            await self._build(tree, lock)
        except GitError:
            if not await self._mirror.mend():
                raise
            await remove_tree(self._draft(tree.path.name), lock)
            await self._build(tree, lock)

    async def _build(self, tree: Tree, lock: int) -> None:
        await self._mirror.require(tree.sha)
        draft = self._draft(tree.path.name)
        await self._git.run("init", "--quiet", "--template=", "-b", "main", str(draft), hold=lock)
        source = ("--upload-pack", self._mirror.upload_pack, "--", str(self._mirror.path), tree.sha)
        flags = ("--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        try:
            await self._git.run("fetch", *flags, *source, git_dir=draft / ".git", hold=lock)
        except GitError as error:
            # Without git's words: of an origin they would say that it is gone, or shut to us, for good.
            raise GitError(f"The mirror cannot be read: {error.message}", code=error.code) from None
        place = {"GIT_WORK_TREE": str(draft)}
        await self._git.run("checkout", "--quiet", "--detach", tree.sha, git_dir=draft / ".git", env=place, hold=lock)
        head = await self._git.run("rev-parse", "HEAD", git_dir=draft / ".git")
        if head.text != tree.sha:
            raise WorkbenchLost("checkout_differs", "The checkout is not at the commit that was asked for.")
        draft.rename(tree.path)
        self._marker(tree.path.name).write_text(tree.sha, encoding="utf-8")


async def clear(root: Path) -> None:
    """Remove a workbench's folder, whatever is left of it; safe to repeat, also after a kill in the middle."""
    if not root.exists():
        return
    async with exclusive(root) as lock:
        for marker in root.glob(".*.done"):
            marker.unlink()
        await remove_tree(root, lock)
