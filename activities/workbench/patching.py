"""Turns a candidate into a commit, on git's objects alone.

No file is written into a worktree before the outcome was checked, and nothing that commands did to a worktree can find
its way into a commit. The worktree is checked out from the finished commit.
"""

import asyncio
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from activities.workbench.commits import Draft, Mission, commit
from activities.workbench.git import LOCAL_SECONDS, GitError, GitResult
from activities.workbench.mirrors import Mirror
from activities.workbench.plumbing import links_of, merge_trees, own_index
from activities.workbench.signing import ServiceKey
from models.domain.errors import InvalidInput, StageFailed
from models.domain.patches import PatchSummary, check_changes, check_links, inspect_patch

_MAX_REASON = 2000
_NAMED = 5
_ODD = re.compile(r"[^\x20-\x7e]|[~:\\]|\.git", re.IGNORECASE)
"""Paths that may stand for one of git's own on some file system; of all others git need not be asked."""
_ANY_FILE_SYSTEM = {"core.protectHFS": "true", "core.protectNTFS": "true"}
_NOT_APPLIED = (1, 128)
_NOT_THE_PATCH = (
    "fatal: ",
    "error: unable to read index file",
    "error: Unable to write new index file",
    "error: unable to create backing store for newly created file ",
)
"""What `git apply` says with exit code 128 about this host; with this code it also refuses a patch it cannot read."""


@dataclass(frozen=True)
class Applied:
    """A candidate on its base: the tree it makes, what changes, and the id an approval binds.

    `source` is the commit that a ref named.
    """

    base: str
    tree: str
    summary: PatchSummary
    patch_id: str
    source: str = ""


async def apply_diff(mirror: Mirror, base: str, diff: bytes | str) -> Applied:
    """Apply a unified diff to the commit `base`; a missing newline at its end is forgiven, nothing else.

    Raises:
        StageFailed: `patch_does_not_apply` with git's reason, `patch_too_slow`, `patch_empty`, or a code of
            `inspect_patch`.
    """
    with _verdicts():
        inspect_patch(diff)
    await mirror.require(base)
    data = diff if isinstance(diff, bytes) else diff.encode()
    whole = data if data.endswith(b"\n") else data + b"\n"
    with own_index(mirror) as env:
        await mirror.git("read-tree", base, env=env)
        _refuse_unapplied(await _apply(mirror, whole, env))
        tree = (await mirror.make("write-tree", env=env)).text
    return await _checked(mirror, base, tree)


async def _apply(mirror: Mirror, diff: bytes, env: Mapping[str, str]) -> GitResult:
    options, found = ("--cached", "--whitespace=nowarn", "-"), (0, *_NOT_APPLIED)
    with _in_time():
        return await mirror.make("apply", *options, stdin=diff, env=env, ok=found, timeout=LOCAL_SECONDS)


@contextmanager
def _in_time() -> Iterator[None]:
    """What a candidate makes git work on for too long fails its stage: another try would take as long."""
    try:
        yield
    except GitError as error:
        if error.code != "git_timeout":
            raise
        told = f"git could not bring the change onto the branch within {LOCAL_SECONDS:g} s: send it in parts"
        raise StageFailed("patch_too_slow", told) from None


async def apply_ref(mirror: Mirror, base: str, ref: str, known: str = "") -> Applied:
    """Bring what a branch, tag or commit changed since it left `base`'s history onto `base`, as a merge would.

    Args:
        known: the commit that the ref named when it was first applied, if it was: a branch may have moved since.

    Raises:
        NotFound: `ref_not_found`, or `commit_not_found` for one that was known.
        StageFailed: `patch_does_not_apply` naming the files in conflict, `patch_too_slow`, `patch_empty`, or a code of
            `inspect_patch`.
    """
    await mirror.require(base)
    source = known or await mirror.resolve(ref)
    await mirror.bring(source)
    if (await mirror.git("merge-base", base, source, ok=(0, 1))).code:
        raise StageFailed("patch_does_not_apply", f"{ref!r} has no history in common with the target branch.")
    with _in_time():
        merged = await merge_trees(mirror, base, source)
    if merged.conflicts:
        files = ", ".join(merged.conflicts[:10])
        raise StageFailed("patch_does_not_apply", f"{ref!r} conflicts with the target branch in: {files}.")
    return replace(await _checked(mirror, base, merged.tree), source=source)


async def commit_patch(
    mirror: Mirror,
    applied: Applied,
    mission: Mission,
    key: ServiceKey,
    *,
    message: str,
    date: datetime,
    author: str | None = None,
) -> str:
    """Make the mission's signed commit; the same input gives the same SHA. What it stands on is held in the mirror."""
    for held in filter(None, (applied.base, applied.source)):
        await mirror.keep(mission.workspace_id, mission.mission_id, held)
    draft = Draft(applied.tree, (applied.base,), message, mission.trailers(), date, author)
    return await commit(mirror, draft, key)


async def commit_only(mirror: Mirror, base: str, head: str, paths: Collection[str], mission: Mission) -> str:
    """Make a commit of `base` with only `paths` as they are in `head`: the before-run's base plus the test files.

    It is never published and therefore not signed. With no path that differs, it has the tree of `base`.
    """
    changes = await mirror.git("diff-tree", "-r", "-z", "--no-renames", "--raw", base, head)
    entries = _entries(changes.out, {path.encode() for path in paths})
    with own_index(mirror) as env:
        await mirror.git("read-tree", base, env=env)
        await mirror.git("update-index", "-z", "--index-info", stdin=entries, env=env)
        tree = (await mirror.make("write-tree", env=env)).text
    stamp = await mirror.git("show", "-s", "--format=%ct", base)
    date = datetime.fromtimestamp(int(stamp.text), UTC)
    draft = Draft(tree, (base,), "The base with the patch's tests", mission.trailers(), date)
    return await commit(mirror, draft, None)


async def _checked(mirror: Mirror, base: str, tree: str) -> Applied:
    """Judge what git really changed, whatever the candidate's text seemed to say."""
    with _verdicts():
        summary = await mirror.changed_files(base, tree)
        await asyncio.to_thread(check_changes, summary.files)
        if any(file.is_symlink for file in summary.files):
            await asyncio.to_thread(check_links, await links_of(mirror, base), await links_of(mirror, tree))
    if any(map(_ODD.search, summary.paths)) and (refused := await _not_taken(mirror, base, tree)):
        names = ", ".join(repr(path.decode()) for path in refused[:_NAMED])
        raise StageFailed("patch_escapes", f"The patch may not write {names}: git checks no such path out.")
    if not summary.files:
        raise StageFailed("patch_empty", "The candidate changes nothing: its change is already on the target branch.")
    return Applied(base, tree, summary, await mirror.patch_id(base, tree))


async def _not_taken(mirror: Mirror, base: str, tree: str) -> list[bytes]:
    """The changed paths that git takes into no index, by its rules for all file systems that a checkout may lie on."""
    changes = await mirror.git("diff-tree", "-r", "-z", "--no-renames", "--raw", "--diff-filter=d", base, tree)
    paths = changes.out.split(b"\0")[1::2]
    with own_index(mirror) as env:
        entries = _entries(changes.out, set(paths))
        await mirror.git("update-index", "-z", "--index-info", stdin=entries, env=env, config=_ANY_FILE_SYSTEM)
        taken = set((await mirror.git("ls-files", "-z", env=env)).out.split(b"\0"))
    return [path for path in paths if path not in taken]


@contextmanager
def _verdicts() -> Iterator[None]:
    """A candidate that breaks a rule fails its stage; the mission itself was filed correctly."""
    try:
        yield
    except InvalidInput as refused:
        raise StageFailed(refused.code, refused.message, **refused.details) from None


def _refuse_unapplied(result: GitResult) -> None:
    if result.code == 0:
        return
    if result.code != 1 and any(line.startswith(_NOT_THE_PATCH) for line in result.err.splitlines()):
        raise GitError("git apply failed.", stderr=result.err)
    reason = "; ".join(line.removeprefix("error: ") for line in result.err.splitlines())[:_MAX_REASON]
    if "beyond a symbolic link" in reason or "invalid path" in reason:
        raise StageFailed("patch_escapes", f"The patch writes where it must not: {reason}")
    raise StageFailed("patch_does_not_apply", f"The patch does not apply to the target branch: {reason}")


def _entries(raw: bytes, wanted: Collection[bytes]) -> bytes:
    """Turn `diff-tree --raw -z` records of the wanted paths into lines for `update-index --index-info`."""
    tokens = raw.split(b"\0")
    lines = []
    for facts, path in zip(tokens[::2], tokens[1::2], strict=False):
        if path in wanted:
            _, mode, _, blob, _ = facts.split(b" ")
            lines.append(mode + b" " + blob + b"\t" + path + b"\0")
    return b"".join(lines)
