"""Moves one branch of the origin from a known commit to another, or says who was in the way.

A local origin may have the branch checked out: its files then follow, unless somebody is at work there. Hooks of the
origin run, wherever it is, since they are its owner's law; with a local origin they run as our user, and so none may
lie among the files that a merge writes.
"""

import asyncio
import fcntl
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from activities.workbench.git import TRANSFER_SECONDS, GitError, GitResult
from activities.workbench.locks import exclusive
from activities.workbench.mirrors import Mirror
from activities.workbench.origins import UNAUTHORIZED, UNKNOWN_KEY
from activities.workbench.planted import read_law
from models.domain.errors import Conflict, NotFound, NotPermitted
from models.domain.repositories import check_ref_name

_CANCEL_SECONDS = 30.0
_WAIT_SECONDS = 120.0
_RECEIVE_PACK = "git -c 'safe.directory=*' -c receive.denyCurrentBranch=updateInstead {hooks}receive-pack"
_DIRTY = ("has unstaged changes", "has staged changes", "Could not update working tree")
_PLANTED = (
    "The origin takes {what} from the files of a checkout, where a merge may write: git would run what a patch brings, "
    "with all that Mission Control may do. Move that out of there, or register a bare repository or a URL."
)
_NAMED = 3
"""Of the files in the way, a message names so many."""
_LOCKED = ("File exists", "Up-to-date check failed")
_UNPACKED = "unpacker error"
_BROKE_OFF = ("fatal: ", "error: pack-objects died")
"""Beginnings of what git says where our side could not send; the other side's words begin with `remote:`."""
_RACED = ("stale info", "failed to update ref", "incorrect old value", "cannot lock ref", "failed to lock")


Allow = Callable[[], Awaitable[None]]


class TargetMoved(Conflict):
    """The branch is no longer where it was: nothing was pushed. `head` is where it is now."""

    def __init__(self, branch: str, head: str) -> None:
        super().__init__("target_moved", f"{branch!r} moved to {head[:12]} in the meantime.", head=head)
        self.head = head


class TargetDirty(Conflict):
    """The branch is checked out in the origin with changes that are not committed: nothing was pushed."""

    def __init__(self, branch: str, said: str, paths: Sequence[str]) -> None:
        where = f" in {', '.join(paths[:_NAMED])}" if paths else ""
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        super().__init__(
            "target_dirty",
            f"{branch!r} is checked out with uncommitted work{where}{more} ({said}): "
            "commit or stash it there, then retry.",
            files=list(paths[:_NAMED]),
        )


class PushRefused(NotPermitted):
    """We may not push: `push_refused` by a hook or a protected branch, `push_unauthorized`, `origin_runs_its_files`."""


async def always() -> None:
    """Let a push be sent."""


async def push(mirror: Mirror, branch: str, old: str, new: str, allow: Allow = always) -> None:
    """Move `branch` of the origin from `old` ("" for a new branch) to `new`, if it is still there.

    Args:
        allow: asked at the last moment, when our turn at the origin has come; it raises where nothing may be sent.

    Raises:
        TargetMoved, TargetDirty, PushRefused: nothing was changed, and why.
        GitError: it is not known whether the push arrived; look before pushing again.
    """
    pushing = asyncio.ensure_future(_push(mirror, check_ref_name(branch), old, new, allow))
    try:
        pushed = await asyncio.shield(pushing)
    except asyncio.CancelledError:
        # Broken off at the wrong moment, a push leaves a checkout half updated: it may end first.
        await asyncio.wait([pushing], timeout=_CANCEL_SECONDS)
        pushing.cancel()
        raise
    if pushed.code:
        await _explain(mirror, branch, old, new, pushed)


async def wait_for_pushes(mirror: Mirror) -> None:
    """Wait until no push into a local origin is under way: its receiving side outlives whoever sent it."""
    async with _alone(mirror):
        pass


async def _head(mirror: Mirror, branch: str) -> str:
    """Where the branch was at the last fetch, "" if there is none."""
    try:
        return await mirror.head(branch)
    except NotFound:
        return ""


async def _push(mirror: Mirror, branch: str, old: str, new: str, allow: Allow) -> GitResult:
    ref = f"refs/heads/{branch}"
    async with _alone(mirror) as lock:
        receiver = await _receiver(mirror)
        await _put_back(mirror, ref, new, lock)
        await allow()
        pushed = await mirror.git(
            "push",
            "--porcelain",
            *receiver,
            f"--force-with-lease={ref}:{old}",
            *("--", mirror.url.url, f"{new}:{ref}"),
            ok=(0, 1, 128),
            timeout=TRANSFER_SECONDS,
            hold=lock,
        )
        if pushed.code:
            await _put_back(mirror, ref, new, lock)
    return pushed


async def _receiver(mirror: Mirror) -> tuple[str, ...]:
    """Say by which command a local origin receives, where that runs nothing that a patch may have written."""
    if mirror.url.path is None:
        return ()
    law = await read_law(mirror)
    if law.planted:
        raise PushRefused("origin_runs_its_files", _PLANTED.format(what=law.planted))
    hooks = f"-c core.hooksPath={shlex.quote(str(law.hooks))} " if law.hooks else ""
    return ("--receive-pack", _RECEIVE_PACK.format(hooks=hooks))


@asynccontextmanager
async def _alone(mirror: Mirror) -> AsyncIterator[int | None]:
    """One push at a time into a local origin: two that meet could leave the loser's files in its checkout.

    The receiving side outlives us when we are killed. It is not made to die with us, for between the files and the
    branch it would leave a checkout with changes that nobody made; it holds the lock, so the next push finds its end.
    """
    if mirror.url.path is None:
        yield None
        return
    if not mirror.origin_dir.is_dir():
        raise GitError("git push failed: the origin is no longer at its path.")
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                lock = await stack.enter_async_context(exclusive(mirror.origin_dir))
        except TimeoutError:
            raise GitError("An earlier push into the origin has not ended: look at what its hooks still do.") from None
        yield lock
        # The push has ended by itself: what the owner's hooks left running may have the lock, but not keep it.
        fcntl.flock(lock, fcntl.LOCK_UN)


async def _put_back(mirror: Mirror, ref: str, new: str, lock: int | None) -> None:
    """Bring a local checkout back to its branch if it holds exactly the files of `new`, but the branch does not.

    Git updates the files before the branch. A push that failed or was killed between the two leaves them so, and every
    later one would take them for somebody's uncommitted work.
    """
    path, place = mirror.url.path, {"GIT_WORK_TREE": str(mirror.url.path)}
    if path is None or path == mirror.origin_dir:
        return
    branch = await mirror.origin_git("symbolic-ref", "--quiet", "HEAD", ok=(0, 1))
    same = await mirror.origin_git("diff-index", "--cached", "--quiet", new, env=place, ok=(0, 1, 128))
    if branch.text == ref and same.code == 0:
        await mirror.origin_git("read-tree", "-m", "-u", new, "HEAD", env=place, ok=(0, 1, 128), hold=lock)


async def _explain(mirror: Mirror, branch: str, old: str, new: str, pushed: GitResult) -> None:
    """Find out why a push failed: first look where the branch is, for a race shows in many words.

    Returns if the push had arrived after all and only its answer was lost.
    """
    said = _rejection(pushed)
    if any(word in pushed.err for word in (*UNAUTHORIZED, UNKNOWN_KEY)):
        raise PushRefused("push_unauthorized", "The origin does not accept our credentials for this branch.")
    await mirror.fetch()
    head = await _head(mirror, branch)
    if head == new:
        return
    if head != old:
        raise TargetMoved(branch, head)
    if any(word in said + pushed.err for word in _LOCKED):
        raise GitError("Another git works on the origin; if none does, remove its stale lock file.", stderr=pushed.err)
    if any(word in said for word in _DIRTY):
        raise TargetDirty(branch, said, await _in_the_way(mirror, old, new))
    if said == _UNPACKED and any(line.startswith(_BROKE_OFF) for line in pushed.err.splitlines()):
        if not await mirror.mend():
            mirror.forget_own()
        raise GitError("git push failed: the commits to push cannot be read here.", stderr=pushed.err)
    if said and not any(word in said for word in _RACED):
        raise PushRefused("push_refused", f"The origin refused the push to {branch!r}: {said}.", stderr=pushed.err)
    raise GitError(f"git push failed: {said or 'the origin broke off'}", stderr=pushed.err)


async def _in_the_way(mirror: Mirror, old: str, new: str) -> list[str]:
    """Name the changed files of the checkout; where there are none, the unknown ones at whose place we would write."""
    place, asked = {"GIT_WORK_TREE": str(mirror.url.path)}, (("diff-files",), ("diff-index", "--cached", "HEAD"))
    options = ("--name-only", "-z")
    changed = [await mirror.origin_git(*words, *options, env=place, ok=(0, 1, 128)) for words in asked]
    if found := sorted({path for result in changed for path in _paths(result)}):
        return found
    added = ("diff-tree", "-r", "--name-only", "-z", "--diff-filter=A")
    return [path for path in _paths(await mirror.git(*added, old, new)) if os.path.lexists(f"{mirror.url.path}/{path}")]


def _paths(result: GitResult) -> list[str]:
    return [path.decode("utf-8", "backslashreplace") for path in result.out.split(b"\0") if path]


def _rejection(pushed: GitResult) -> str:
    """The origin's reason in the porcelain line `!<tab>refs<tab>[remote rejected] (reason)`."""
    for line in pushed.text.splitlines():
        if line.startswith("!"):
            return line.rpartition("(")[2].rstrip(")")
    return ""
