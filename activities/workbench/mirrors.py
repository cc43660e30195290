"""A bare copy of a registered repository on this host: every mission reads it, one writer at a time fetches into it.

Branches of the origin stand under `refs/remotes/origin/`, and missions hold the commits they start from under
`refs/mission-control/`, where no fetch touches them. What a mission makes itself lies in a folder of its own, which
goes with its workbench: a secret in a candidate does not stay here, and no mission can lose what another one made. The
origin is not configured: each fetch and push names it, so that nothing stored in the mirror can send us elsewhere.
"""

import asyncio
import json
import math
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Unpack
from uuid import uuid4

from activities.workbench.git import TRANSFER_SECONDS, Git, GitError, GitOptions, GitResult
from activities.workbench.locks import exclusive
from activities.workbench.renewal import take_over
from models.domain.errors import InvalidInput, NotFound, TooLarge, WorkbenchLost
from models.domain.patches import FileChange, PatchSummary, parse_changes
from models.domain.repositories import RepositoryUrl, check_ref_name

MAX_DIFF_BYTES = 64 * 1024**2
UPLOAD_PACK = "git -c 'safe.directory=*' upload-pack"
"""Lets us read a local repository that another user owns; the roots it may lie in are the operator's choice."""

_BRANCHES = "refs/remotes/origin"
_REFSPECS = (f"+refs/heads/*:{_BRANCHES}/*", "+refs/tags/*:refs/tags/*")
_FETCH = ("--quiet", "--no-tags", "--no-write-fetch-head")
_NOT_THERE = ("not our ref", "unadvertised object")
_HEX = frozenset("0123456789abcdef")
_WHOLE_SHA = re.compile("[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_SCRATCH, _SCRATCH_SECONDS = "scratch-", 3600
_FRESH = "fresh"
"""The folder in a mirror for the one that takes its place."""
_FSCK_CODES = range(64)
_BAD_OBJECT, _BAD_PACK = 1, 4
"""Bits of the exit code of `git fsck`, of damage and of content alike: only the others are of damage alone."""


def last_fetch(path: Path) -> float:
    """When a mirror was last fetched into, or begun; never idle when there is none any more."""
    for place in (path / "HEAD", path):
        with suppress(FileNotFoundError):
            return place.stat().st_mtime
    return math.inf


class Mirror:
    """The mirror at `path` of the repository at `url` (looked at right before).

    `own` is the folder for the objects of one mission; without it they go into the mirror.
    """

    def __init__(self, path: Path, url: RepositoryUrl, git: Git, own: Path | None = None) -> None:
        self.path = path
        self.url = url
        self._git = git
        self._own = own

    async def git(self, *args: str, **options: Unpack[GitOptions]) -> GitResult:
        """Run git on the mirror, with the mission's own objects in sight; options are those of `Git.run`."""
        if self._own is not None and self._own.is_dir():
            options["env"] = {**_also(self._own), **options.get("env", {})}
        return await self._shared(*args, **options)

    async def make(self, *args: str, **options: Unpack[GitOptions]) -> GitResult:
        """Run a git command that makes objects: they become the mission's own."""
        if self._own is not None:
            self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
            places = {"GIT_OBJECT_DIRECTORY": str(self._own), **_also(self.path / "objects")}
            options["env"] = {**places, **options.get("env", {})}
        return await self._shared(*args, **options)

    async def _shared(self, *args: str, **options: Unpack[GitOptions]) -> GitResult:
        """Run git on the mirror alone: what a fetch brings must be whole without any mission's objects."""
        return await self._git.run(*args, git_dir=self.path, **options)

    @property
    def upload_pack(self) -> str:
        """The command that serves the mirror and the mission's own objects to a fetch."""
        own = _also(self._own) if self._own else {}
        return "".join(f"{name}={shlex.quote(value)} " for name, value in own.items()) + UPLOAD_PACK

    @property
    def origin_dir(self) -> Path:
        """The folder with the refs and objects of a local origin, bare or not."""
        if self.url.path is None:
            raise ValueError("a remote repository has no folder here")
        path = Path(self.url.path)
        return path / ".git" if (path / ".git").is_dir() else path

    @property
    def home(self) -> Path:
        """What git takes for the user's home folder, also where it receives a push."""
        return self._git.home

    async def origin_git(self, *args: str, **options: Unpack[GitOptions]) -> GitResult:
        """Run git on a local origin itself; its own configuration holds there, but for its hooks."""
        return await self._git.run(*args, git_dir=self.origin_dir, **options)

    async def origin_settings(self, git_dir: Path) -> bytes:
        """All that is set in a local origin, or in a linked worktree of it, with the files that say it."""
        listed = ("config", "--list", "--show-origin", "--includes", "--null")
        return (await self._git.run(*listed, git_dir=git_dir)).out

    async def fetch(self) -> None:
        """Bring branches and tags up to date; makes the mirror if it is missing, remakes it if it is damaged.

        Raises:
            GitError: the origin cannot be read now.
        """
        async with exclusive(self.path) as lock:
            await self._prepare(lock)
            (self.path / "HEAD").touch()
            try:
                await self._fetch(lock)
            except GitError as error:
                if error.code == "git_timeout":  # once more would be longer than an activity may take
                    raise
                await self._shared("ls-remote", "--quiet", *self._origin(), "HEAD", timeout=TRANSFER_SECONDS)
                await self._fetch_again(lock)

    async def mend(self) -> bool:
        """Look for damage after an unexplained failure; True when the mirror had to be made anew.

        Commits of missions that no branch holds are lost then; `require` says so when they are needed.

        Raises:
            GitError: the origin cannot be read now, or looking took too long.
        """
        async with exclusive(self.path) as lock:
            there = (self.path / "HEAD").exists()
            await self._prepare(lock)
            if there and await self._healthy(lock):
                return False
            await self._remake(lock)
            return True

    def forget_own(self) -> None:
        """Drop what the mission made itself; `require` says so, and the stage makes it again to the same SHA."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    async def head(self, branch: str) -> str:
        """The SHA of a branch as of the last fetch.

        Raises:
            NotFound: `branch_not_found`.
        """
        sha = await self._settled([f"{_BRANCHES}/{check_ref_name(branch)}"])
        if sha is None:
            raise NotFound("branch_not_found", f"The repository has no branch {branch!r}.")
        return sha

    async def resolve(self, ref: str) -> str:
        """The commit that a branch, a tag or the beginning of a SHA names, in this order.

        A whole SHA is never a name: whoever may push a branch could give it that of another's commit.

        Raises:
            NotFound: `ref_not_found`.
        """
        name = check_ref_name(ref)
        short = name.removeprefix("refs/heads/").removeprefix("refs/tags/")
        places = [f"{_BRANCHES}/{short}"] * (not name.startswith("refs/tags/"))
        places += [f"refs/tags/{short}"] * (not name.startswith("refs/heads/"))
        places += [name] * (len(name) >= 7 and set(name) <= _HEX)
        whole = _WHOLE_SHA.fullmatch(name)
        sha = await self._settled([name] if whole else places)
        if sha is None or (whole and sha != name.lower()):
            raise NotFound("ref_not_found", f"The repository has no branch, tag or commit {ref!r}.")
        return sha

    async def require(self, sha: str) -> None:
        """Make sure a commit is here.

        Raises:
            WorkbenchLost: `commit_lost`; another host made it, or the mirror was remade since.
        """
        if await self._commit_of(sha) is None:
            raise WorkbenchLost(
                "commit_lost", f"The commit {sha[:12]} is not on this host; the stage that made it repeats."
            )

    async def bring(self, sha: str) -> None:
        """Have a commit here to which no branch may lead any more.

        Raises:
            NotFound: `commit_not_found`, the origin has it no more.
            GitError: the origin cannot be read now.
        """
        if await self._commit_of(sha) is not None:
            return
        async with exclusive(self.path) as lock:
            await self._prepare(lock)
            try:
                await self._shared("fetch", *_FETCH, *self._origin(), sha, timeout=TRANSFER_SECONDS, hold=lock)
            except GitError as error:
                if any(word in error.stderr for word in _NOT_THERE):
                    message = (
                        f"The repository has the commit {sha[:12]} no more: push it again, then retry the mission."
                    )
                    raise NotFound("commit_not_found", message) from None
                raise

    async def contains(self, head: str, sha: str) -> bool:
        """Whether `sha` is an ancestor of `head`, or the same commit."""
        if await self._commit_of(sha) is None:
            return False
        return (await self.git("merge-base", "--is-ancestor", sha, head, ok=(0, 1))).code == 0

    async def keep(self, workspace_id: str, mission_id: str, sha: str) -> None:
        """Hold a commit that a mission starts from, though no branch leads to it any more."""
        async with exclusive(self.path) as lock:
            ref = f"refs/mission-control/{workspace_id}/{mission_id}/{sha}"
            (self.path / f"{ref}.lock").unlink(missing_ok=True)
            await self._shared("update-ref", ref, sha, hold=lock)

    async def forget(self, workspace_id: str, mission_id: str) -> None:
        """Hold a mission's commits no longer; git removes them when it next clears up."""
        if not (self.path / "HEAD").exists():
            return
        async with exclusive(self.path) as lock:
            prefix = f"refs/mission-control/{workspace_id}/{mission_id}/"
            listed = await self._shared("for-each-ref", "--format=delete %(refname)", prefix)
            if listed.out:
                await self._shared("update-ref", "--stdin", stdin=listed.out, hold=lock)

    async def read_file(self, sha: str, path: str, max_bytes: int) -> bytes | None:
        """A file's content at a commit; None when there is no such path.

        Raises:
            InvalidInput: `file_not_regular` for a folder or a link.
            TooLarge: `file_too_large`.
        """
        listed = await self.git("ls-tree", "-z", "--long", sha, "--", path)
        if not listed.out:
            return None
        mode, _, blob, size = listed.text.split("\t")[0].split()
        if mode not in ("100644", "100755"):
            raise InvalidInput("file_not_regular", f"{path!r} must be a plain file.")
        if int(size) > max_bytes:
            raise TooLarge("file_too_large", f"{path!r} has {size} bytes; {max_bytes} are allowed.")
        return (await self.git("cat-file", "blob", blob)).out

    async def paths(self, sha: str) -> list[str]:
        """Every file's path at a commit."""
        listed = await self.git("ls-tree", "-r", "-z", "--name-only", sha)
        return [name.decode("utf-8", "replace") for name in listed.out.split(b"\0") if name]

    async def changed_files(self, base: str, head: str) -> PatchSummary:
        """What differs between two commits or trees, by git's own account."""
        listed = await self.git("diff-tree", "-r", "-z", "-M", "--raw", "--numstat", "--no-ext-diff", base, head)
        files: tuple[FileChange, ...] = await asyncio.to_thread(parse_changes, listed.out)
        return PatchSummary(files)

    async def diff(self, base: str, head: str) -> bytes:
        """The unified diff between two commits or trees; of binary files only the names."""
        return await self._diff(base, head, "-M")

    async def patch_id(self, base: str, head: str) -> str:
        """Name a change by the files before and after it; what an approval binds.

        git's own patch id says nothing of the place: on a moved branch the same lines may fit elsewhere in a file.
        """
        flags = ("-r", "-z", "--raw", "--no-abbrev", "--no-renames")
        return sha256((await self.git("diff-tree", *flags, base, head, max_output=MAX_DIFF_BYTES)).out).hexdigest()

    def scratch_index(self) -> Path:
        """A path for an index file of one's own; what a killed process leaves behind is cleared by a later fetch."""
        return self.path / f"{_SCRATCH}{uuid4().hex}"

    async def _diff(self, base: str, head: str, *flags: str) -> bytes:
        plain = ("-r", "-p", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color")
        return (await self.git("diff-tree", *plain, *flags, base, head, max_output=MAX_DIFF_BYTES)).out

    def _origin(self) -> tuple[str, ...]:
        local = ("--upload-pack", UPLOAD_PACK) if self.url.path else ()
        return (*local, "--", self.url.url)

    async def _settled(self, places: Sequence[str]) -> str | None:
        """The commit of the first place that has one; None only when nobody is making the mirror anew."""
        if (sha := await self._first_of(places)) is None:
            async with exclusive(self.path):
                sha = await self._first_of(places)
        return sha

    async def _first_of(self, places: Sequence[str]) -> str | None:
        """The commit of the first place that has one."""
        for place in places:
            if (sha := await self._commit_of(place)) is not None:
                return sha
        return None

    async def _commit_of(self, name: str) -> str | None:
        found = await self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", ok=(0, 1))
        return found.text if found.code == 0 else None

    async def _prepare(self, lock: int) -> None:
        """Make the bare repository, or complete a half-made one; harmless on a whole one."""
        self._clean()
        try:
            await self._init(lock)
        except GitError:
            if (await self._shared("rev-parse", "--git-dir", ok=(0, 128))).code == 0:
                raise
            self._wipe()
            await self._init(lock)

    async def _init(self, lock: int) -> None:
        self.path.chmod(0o700)
        await self._git.run("init", "--quiet", "--bare", "--template=", "-b", "main", str(self.path), hold=lock)

    async def _fetch(self, lock: int) -> None:
        flags = (*_FETCH, "--prune", "--force", "--update-shallow")
        await self._shared("fetch", *flags, *self._origin(), *_REFSPECS, timeout=TRANSFER_SECONDS, hold=lock)

    async def _fetch_again(self, lock: int) -> None:
        """The origin answers, so the trouble is ours: a lock a killed fetch left on a branch, or damage."""
        for stale in self.path.glob("refs/**/*.lock"):
            stale.unlink(missing_ok=True)
        try:
            await self._fetch(lock)
        except GitError:
            if await self._healthy(lock):
                raise
            await self._remake(lock)

    async def _healthy(self, lock: int) -> bool:
        """Whether every object is here and is what its id says.

        Content that git dislikes is no damage: it came so from the origin, and would again.
        """
        flags = ("--no-dangling", "--no-progress")
        try:
            looked = await self._shared("fsck", *flags, ok=_FSCK_CODES, timeout=TRANSFER_SECONDS, hold=lock)
            if looked.code & _BAD_PACK:
                packs = map(str, self.path.glob("objects/pack/*.pack"))
                await self._shared("verify-pack", *packs, timeout=TRANSFER_SECONDS, hold=lock)
        except GitError as error:
            if error.code == "git_timeout":
                raise
            return False
        return not looked.code & ~(_BAD_OBJECT | _BAD_PACK)

    async def _remake(self, lock: int) -> None:
        """Make the mirror anew; whoever reads it meanwhile finds the old one, then the new one, and never none."""
        fresh = Mirror(self.path / _FRESH, self.url, self._git)
        fresh.path.mkdir()
        try:
            await fresh._init(lock)
            await fresh._fetch(lock)
            await fresh._shared("pack-refs", "--all", hold=lock)
            take_over(fresh.path, self.path, spare=(_FRESH, _SCRATCH))
        finally:
            shutil.rmtree(fresh.path, ignore_errors=True)

    def _wipe(self) -> None:
        """Empty the folder but keep it, for the lock is on it; and indexes in use, for no patch fits an empty one."""
        for entry in self.path.iterdir():
            if not entry.name.startswith(_SCRATCH):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _clean(self) -> None:
        """Take away what a killed writer left. We hold the lock, so a git lock file here has no living owner.

        Only scratch indexes, and git's locks on those, are used without it: they go when they are old.
        """
        for pattern in ("*.lock", "objects/pack/tmp_*", "objects/pack/*.keep"):
            for stale in self.path.glob(pattern):
                if not stale.name.startswith(_SCRATCH):
                    stale.unlink(missing_ok=True)
        for folder in (*self.path.glob("objects/tmp_objdir-*"), self.path / _FRESH):
            shutil.rmtree(folder, ignore_errors=True)
        for index in self.path.glob(f"{_SCRATCH}*"):
            with suppress(FileNotFoundError):
                if time.time() - index.stat().st_mtime > _SCRATCH_SECONDS:
                    index.unlink()


def _also(objects: Path) -> dict[str, str]:
    """Have git read these objects too; quoted, for a colon would part two folders."""
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": json.dumps(str(objects), ensure_ascii=False)}
