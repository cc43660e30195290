"""The merge of a mission into its target branch, and taking exactly that merge out again.

Both are made from objects alone and pushed with the exact commit they expect to replace, so they work alike for bare,
checked-out and remote origins. Both look for themselves first: however often they are called, and wherever an earlier
try was killed, the branch holds one merge and at most one revert.
"""

from dataclasses import dataclass
from datetime import datetime

from activities.workbench.commits import Draft, Mission, commit, find_signed
from activities.workbench.mirrors import Mirror
from activities.workbench.plumbing import merge_trees, undo_tree
from activities.workbench.pushing import Allow, TargetMoved, always, push, wait_for_pushes
from activities.workbench.signing import ServiceKey
from models.domain.errors import Conflict, NotFound

_REVERT_TRIES = 5


class MergeConflict(Conflict):
    """The mission's commit and the target branch changed the same lines of `files`: nothing was merged."""

    def __init__(self, files: tuple[str, ...]) -> None:
        super().__init__("merge_conflict", f"The merge conflicts in: {', '.join(files[:10])}.", files=list(files))
        self.files = files


class RevertConflict(Conflict):
    """Later commits changed what the merge brought, in `files`: nothing was reverted, a human must decide."""

    def __init__(self, files: tuple[str, ...]) -> None:
        message = f"Later commits build on the merge in: {', '.join(files[:10])}. Revert it by hand."
        super().__init__("revert_conflict", message, files=list(files))
        self.files = files


@dataclass(frozen=True)
class Merged:
    """The merge in the branch; `already_there` when an earlier try had made it."""

    sha: str
    base: str
    already_there: bool


@dataclass(frozen=True)
class Reverted:
    """The revert in the branch; `already_there` when an earlier try had made it."""

    sha: str
    already_there: bool


async def find_merge(mirror: Mirror, branch: str, mission: Mission, since: str, key: ServiceKey) -> str | None:
    """The mission's signed merge in the branch as of the last fetch, or None.

    Only commits newer than `since` (any commit the branch held when the mission began) are searched.

    Raises:
        NotFound: `branch_not_found`.
    """
    head = await mirror.head(branch)
    return await find_signed(mirror, since, head, mission.trailers(), key, merges=True)


async def merge(
    mirror: Mirror,
    branch: str,
    *,
    base: str,
    topic: str,
    mission: Mission,
    evidence: str,
    date: datetime,
    key: ServiceKey,
    allow: Allow = always,
) -> Merged:
    """Merge `topic` into `branch`, which must still be at `base`, or find that this was done.

    Args:
        evidence: digest of what the approval and the stages rest on; it becomes a trailer.
        date: of the commit; the same for every try, so that each makes the same commit.
        allow: as of `push`.

    Raises:
        TargetMoved, MergeConflict, TargetDirty, PushRefused: nothing was merged, and why.
        NotFound: `branch_not_found`.
        WorkbenchLost: `commit_lost`, `topic` is not on this host.
        GitError: try again; the next try looks first.
    """
    await mirror.fetch()
    if (head := await mirror.head(branch)) != base:
        return await _found_or_moved(mirror, branch, base, head, mission, key)
    await mirror.require(topic)
    merged = await merge_trees(mirror, base, topic)
    if merged.conflicts:
        raise MergeConflict(merged.conflicts)
    message = f"Merge {mission.mission_id} into {branch}"
    draft = Draft(merged.tree, (base, topic), message, {**mission.trailers(), "Evidence": evidence}, date)
    sha = await commit(mirror, draft, key)
    try:
        await push(mirror, branch, base, sha, allow)
    except TargetMoved as moved:
        return await _found_or_moved(mirror, branch, base, moved.head, mission, key)
    return Merged(sha, base, already_there=False)


async def revert(
    mirror: Mirror, branch: str, *, merge_sha: str, mission: Mission, reason: str, date: datetime, key: ServiceKey
) -> Reverted:
    """Take the mission's merge out of `branch` by a new commit; what others committed since stays.

    A branch that moves meanwhile is followed a few times.

    Raises:
        NotFound: `merge_not_found`, the branch does not hold this merge (any more).
        RevertConflict, TargetDirty, PushRefused, TargetMoved: nothing was reverted, and why.
        GitError: try again; the next try looks first.
    """
    for tries_left in reversed(range(_REVERT_TRIES)):
        try:
            return await _revert_once(mirror, branch, merge_sha, mission, reason, date, key)
        except TargetMoved:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


async def _revert_once(
    mirror: Mirror, branch: str, merge_sha: str, mission: Mission, reason: str, date: datetime, key: ServiceKey
) -> Reverted:
    await mirror.fetch()
    head = await mirror.head(branch)
    if not await mirror.contains(head, merge_sha):
        raise NotFound("merge_not_found", f"{branch!r} does not hold the merge {merge_sha[:12]}: it was rewritten.")
    trailers = mission.trailers("Reverts-Mission")
    if found := await find_signed(mirror, merge_sha, head, trailers, key, merges=False):
        return Reverted(found, already_there=True)
    undone = await undo_tree(mirror, head, merge_sha)
    if undone.conflicts:
        raise RevertConflict(undone.conflicts)
    message = f"Revert the merge of {mission.mission_id}\n\n{reason}\n\nThis reverts merge {merge_sha}."
    sha = await commit(mirror, Draft(undone.tree, (head,), message, trailers, date), key)
    await push(mirror, branch, head, sha)
    return Reverted(sha, already_there=False)


async def find_earlier(mirror: Mirror, branch: str, base: str, mission: Mission, key: ServiceKey) -> Merged | None:
    """Find the mission's merge where an earlier try made it on `base`, or None; looks at the branch as it is now.

    What an earlier try sent to a local origin has ended by then, one way or the other.

    Raises:
        NotFound: `branch_not_found`.
        GitError: try again.
    """
    await wait_for_pushes(mirror)
    await mirror.fetch()
    return await _found(mirror, branch, base, await mirror.head(branch), mission, key)


async def _found_or_moved(
    mirror: Mirror, branch: str, base: str, head: str, mission: Mission, key: ServiceKey
) -> Merged:
    """Tell whether the branch moved by our own merge, perhaps with others' commits after it, or without us."""
    if found := await _found(mirror, branch, base, head, mission, key):
        return found
    raise TargetMoved(branch, head)


async def _found(mirror: Mirror, branch: str, base: str, head: str, mission: Mission, key: ServiceKey) -> Merged | None:
    if await mirror.contains(head, base) and (sha := await find_merge(mirror, branch, mission, base, key)):
        parent = await mirror.git("rev-parse", "--verify", f"{sha}^1")
        return Merged(sha, parent.text, already_there=True)
    return None
