"""The mirror: a git repository elsewhere that gets each checkpoint of the audit log as a commit.

Whoever rewrites the database, its checkpoints and all, cannot rewrite what another machine has.
"""

import asyncio
import shutil
from datetime import datetime
from pathlib import Path

import structlog

from activities.alarm import Alarm
from activities.sealing import said
from activities.workbench.git import TRANSFER_SECONDS, Git, GitError
from activities.workbench.locks import exclusive
from activities.workbench.origins import login_apart
from models.domain import checkpoints
from models.domain.checkpoints import Checkpoint
from models.domain.errors import Conflict, InvalidInput
from models.domain.merkle import EMPTY_ROOT
from models.store import audit_tree
from models.store.database import Database
from models.tables.audit import AuditCheckpoint

BRANCH = "refs/heads/main"
FILE = "checkpoint"
EVERY_SECONDS = 1.0
"""As often as the sealer signs: what somebody rewrites before it is mirrored, no other machine has."""
AGAIN_SECONDS = 30.0
"""The mirror is another machine's: one that is away, or refuses, is asked no more often, and sealing never waits."""
AT_ONCE = 200
"""Commits of one push: what they are proven with is read in one transaction, well within the time it has."""
_LEFT_BEHIND = ("*.lock", "refs/**/*.lock", "objects/*.lock", "objects/info/**/*.lock", "objects/pack/tmp_*")
log = structlog.get_logger()


class AuditMirror:
    """Follows the checkpoints; sealing never waits for it. It only ever adds commits to the mirror.

    `place` is a copy of the mirror's newest commit, which workers of one host use one after the other.
    """

    def __init__(self, db: Database, git: Git, url: str, place: Path) -> None:
        self._db, self._git, self._place = db, git, place
        self._url, self._login = login_apart(url)
        self._alarm = Alarm(db, "mirror")
        self._brought = 0

    async def run(self) -> None:
        """Mirror for as long as the process works. A failure is logged, and seen at `/metrics`, until it is mended.

        A mirror that contradicts the log is an alert.
        """
        while True:
            try:
                while brought := await self.push():
                    await self._alarm.rest()
                    if brought < AT_ONCE:
                        break
                await asyncio.sleep(EVERY_SECONDS)
            except Exception as error:  # as of the sealer
                log.error("audit_mirror_failed", error=said(error))
                await self._alarm.ring(error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def push(self) -> int:
        """Bring the mirror what it lacks; how many checkpoints. One worker of a host after the other.

        Raises:
            Conflict: `audit_mirror_disagrees`, it has a checkpoint that the log never passed through; or what the log
                has is not what follows on it (`audit_taken_back`, `audit_tree_broken`): it gets none of that.
            GitError: it cannot be reached, or takes no push.
        """
        async with exclusive(self._place) as lock:
            return await self._push(lock)

    async def _push(self, lock: int) -> int:
        async with self._db.system() as session:
            standing = await audit_tree.standing(session)
        if standing.mirrored == self._brought == standing.sealed and standing.sealed:
            return 0  # what the database says of the mirror is not enough: it may be made to say so
        try:
            return await self._bring(lock)
        except GitError as error:
            if error.code == "git_timeout":
                raise
            await self._list()  # the mirror answers, so the trouble may be our copy, which is soon made anew
            self._empty()
            return await self._bring(lock)

    async def _bring(self, lock: int) -> int:
        head = await self._fetch(lock)
        known = await self._agreed(head)
        async with self._db.system() as session:
            lacking = await audit_tree.grown_from(session, known, AT_ONCE)
        size = lacking[-1].size if lacking else known.size
        if lacking:
            await self._commit(head, lacking, lock)
        self._brought = size
        if size:
            async with self._db.system() as session:
                await audit_tree.note_mirrored(session, size)
        return len(lacking)

    async def _fetch(self, lock: int) -> str:
        """Get the mirror's branch as it is now; the name of its head, "" where there is none yet."""
        self._unlock()
        await self._git.run("init", "--quiet", "--bare", str(self._place), hold=lock)
        if not await self._list():
            return ""
        await self._transfer("fetch", "--depth=1", what=f"+{BRANCH}:{BRANCH}", lock=lock)
        return (await self._git.run("rev-parse", "--verify", BRANCH, git_dir=self._place)).text

    async def _list(self) -> str:
        """Ask the mirror for its branch; "" where there is none yet."""
        args = ("ls-remote", "--", self._url, BRANCH)
        return (await self._git.run(*args, env=self._login, timeout=TRANSFER_SECONDS)).text

    def _unlock(self) -> None:
        """Take away what a killed git left in our copy: we hold the folder, so no lock in it has a living owner."""
        for pattern in _LEFT_BEHIND:
            for stale in self._place.glob(pattern):
                stale.unlink(missing_ok=True)

    def _empty(self) -> None:
        """Begin the copy anew; the folder stays, for the lock is on it."""
        for entry in self._place.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    async def _agreed(self, head: str) -> Checkpoint:
        """Hold the mirror's newest checkpoint against ours."""
        if not head:
            return Checkpoint("", 0, EMPTY_ROOT)
        shown = await self._git.run("cat-file", "blob", f"{head}:{FILE}", git_dir=self._place, ok=(0, 128))
        try:
            known = checkpoints.read(shown.out.decode())
        except (InvalidInput, UnicodeDecodeError):
            raise _disagrees(-1) from None
        async with self._db.system() as session:
            ours = await audit_tree.checkpoints_after(session, known.size - 1, 1)
        if not ours or ours[0].note.encode() != shown.out:
            raise _disagrees(known.size)
        return known

    async def _commit(self, head: str, lacking: list[AuditCheckpoint], lock: int) -> None:
        """Add a commit per checkpoint, the same ones whoever makes them, and push them. Nothing is ever forced."""
        script, parent = [], head
        for checkpoint in lacking:
            script.append(_commit(checkpoint, parent))
            parent = ""
        made = b"".join(script)
        await self._git.run("fast-import", "--quiet", "--force", git_dir=self._place, stdin=made, hold=lock)
        await self._transfer("push", what=f"{BRANCH}:{BRANCH}", lock=lock)

    async def _transfer(self, *verb: str, what: str, lock: int) -> None:
        args = (*verb, "--quiet", "--", self._url, what)
        await self._git.run(*args, git_dir=self._place, env=self._login, timeout=TRANSFER_SECONDS, hold=lock)


def _disagrees(size: int) -> Conflict:
    message = "the mirror has a checkpoint that is none of this log: compare the two before anything else"
    return Conflict("audit_mirror_disagrees", message, size=size)


def _commit(checkpoint: AuditCheckpoint, parent: str) -> bytes:
    """Write a commit for `git fast-import`; without `parent`, on top of the one before."""
    note, message = checkpoint.note.encode(), f"Checkpoint {checkpoint.size}\n".encode()
    lines = [
        f"commit {BRANCH}\n".encode(),
        f"committer Mission Control <mission-control@localhost> {_seconds(checkpoint.created_at)} +0000\n".encode(),
        b"data %d\n%s" % (len(message), message),
        f"from {parent}\n".encode() if parent else b"",
        b"M 100644 inline %s\ndata %d\n%s\n" % (FILE.encode(), len(note), note),
    ]
    return b"".join(lines)


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
