"""A mission's workbench on this host: its repository's mirror, its checkouts, and all that Postgres knows about it.

Every stage asks for what it needs and gets it made if it is missing, so a stage can repeat on a host that never saw the
mission: the base commit comes from the origin, the mission's own commit is made again from the stored candidate, to the
same SHA.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from activities.workbench.commits import Mission as Author
from activities.workbench.git import Git, GitError
from activities.workbench.locks import exclusive
from activities.workbench.mirrors import Mirror, last_fetch
from activities.workbench.patching import Applied, apply_diff, apply_ref, commit_patch
from activities.workbench.signing import ServiceKey
from activities.workbench.trees import remove_tree
from activities.workbench.worktrees import Workbench, clear
from models.contracts.missions import TrustRequirements
from models.contracts.pipeline import StageInput, StageRef
from models.domain.errors import Gone, InvalidInput, NotFound, StageFailed, Unavailable, WorkbenchLost
from models.domain.memory import require_code_write
from models.domain.repo_config import Commands
from models.domain.repositories import usable
from models.repositories import look
from models.settings import Settings
from models.store import blobs, candidates, running, stages, workbenches
from models.store.database import Database
from models.tables.missions import Candidate, Mission
from models.tables.workspaces import Repository

_MOVED = (
    "the repository's path leads to another repository than when it was registered, whose rules are not this one's: "
    "put back what was there, or have an operator register the repository that is meant"
)
MIRROR_IDLE_SECONDS = 30 * 24 * 3600.0
"""A mirror that nothing was fetched into for so long makes room; the next mission brings it again."""


@dataclass(frozen=True)
class Job:
    """One mission on this host."""

    mission: Mission
    repository: Repository
    mirror: Mirror
    bench: Workbench

    @property
    def author(self) -> Author:
        """Whose commits these are."""
        return Author(self.mission.workspace_id, self.mission.mission_id)

    def require_write(self) -> None:
        """Hold the mission to what it may write; raises `StageFailed` where it may only read (POL-17)."""
        require_code_write(TrustRequirements.model_validate(self.mission.trust_requirements).memory_write_scope)

    @property
    def commands(self) -> Commands:
        """What stage 1 settled on: registered, from the file at the base, detected, or overridden."""
        return Commands.model_validate(self.mission.commands)


class Benches:
    """Finds and makes the workbenches of this host."""

    def __init__(self, settings: Settings, db: Database, key: ServiceKey, host: str) -> None:
        self.settings, self.db, self.key, self.host = settings, db, key, host
        self.git = Git(settings.data_dir / "git-home")
        self._mirrors = settings.cache_dir / "mirrors"

    async def job(self, workspace_id: str, mission_id: str) -> Job:
        """Load a mission and name its places on this host.

        Raises:
            InvalidInput: the repository's URL is no longer allowed, or leads to another repository by now.
        """
        async with self.db.workspace(workspace_id) as session:
            mission = await running.load(session, workspace_id, mission_id)
            repository = await running.load_repository(session, mission)
        url = usable(await look(repository.url, self.settings.repository_roots))
        if url.place != repository.place:
            raise InvalidInput("repository_moved", _MOVED)
        root = self.folder(workspace_id, mission_id)
        mirror = Mirror(
            self._mirrors / workspace_id / f"{repository.repository_id}.git", url, self.git, root / ".objects"
        )
        return Job(mission, repository, mirror, Workbench(root, mirror, self.git))

    async def close(self, workspace_id: str, mission_id: str) -> None:
        """Remove all that the mission has on this host."""
        await clear(self.folder(workspace_id, mission_id))
        await self._forget(workspace_id, mission_id)
        async with self.db.workspace(workspace_id) as session:
            await workbenches.close_on(session, workspace_id, mission_id, self.host)
        with suppress(Unavailable):  # the workbench is closed all the same; the next one to close tries again
            await self.prune()

    async def prune(self) -> None:
        """Remove the mirrors that nothing was fetched into for long, and of which no mission has a workbench here."""
        for path in self._mirrors.glob("*/*.git"):
            if time.time() - last_fetch(path) > MIRROR_IDLE_SECONDS:
                async with exclusive(path) as lock:
                    # Somebody may have fetched, or removed it, while we waited.
                    idle = time.time() - last_fetch(path) > MIRROR_IDLE_SECONDS
                    if idle and not await self._is_in_use(path.parent.name, path.stem):
                        await remove_tree(path, lock)

    async def _is_in_use(self, workspace_id: str, repository_id: str) -> bool:
        async with self.db.workspace(workspace_id) as session:
            return await workbenches.is_open_on(session, workspace_id, repository_id, self.host)

    async def _forget(self, workspace_id: str, mission_id: str) -> None:
        """Let go of a mission's commits in the mirror; one whose repository is no longer allowed keeps them."""
        with suppress(InvalidInput):
            await (await self.job(workspace_id, mission_id)).mirror.forget(workspace_id, mission_id)

    def folder(self, workspace_id: str, mission_id: str) -> Path:
        """Name a mission's folder on this host."""
        return self.settings.data_dir / "workbenches" / workspace_id / mission_id

    async def open(self, ref: StageRef) -> Job:
        """Load a job, and note that this host holds its worktrees from now on."""
        job = await self.job(ref.workspace_id, ref.mission_id)
        async with self.db.workspace(ref.workspace_id) as session:
            await workbenches.open_on(session, ref.workspace_id, ref.mission_id, self.host)
        return job

    async def require_base(self, job: Job, base_sha: str) -> None:
        """Have the base commit here, fetched if need be, into a mirror that is made if this host has none."""
        try:
            await job.mirror.require(base_sha)
        except (WorkbenchLost, GitError):
            await job.mirror.fetch()
            await job.mirror.require(base_sha)

    async def require_head(self, job: Job, task: StageInput) -> None:
        """Have the mission's commit here, made again if another host made it first.

        Raises:
            StageFailed: `commit_differs`, the same candidate made another commit here.
        """
        await self.require_base(job, task.base_sha)
        try:
            await job.mirror.require(task.head_sha)
        except WorkbenchLost:
            made = await self.commit(job, task.ref, await self.apply(job, task))
            if made != task.head_sha:
                raise StageFailed(
                    "commit_differs", "this host makes another commit: do all hosts share one key?"
                ) from None

    async def apply(self, job: Job, task: StageInput) -> Applied:
        """Apply the stage's candidate to its base."""
        candidate, diff = await self.candidate(task.ref)
        if diff is not None:
            return await apply_diff(job.mirror, task.base_sha, diff)
        async with self.db.workspace(task.ref.workspace_id) as session:
            known = await stages.source_of(session, task.ref)
        try:
            return await apply_ref(job.mirror, task.base_sha, candidate.ref or "", known)
        except NotFound as error:
            raise StageFailed(error.code, error.message) from None

    async def commit(self, job: Job, ref: StageRef, applied: Applied) -> str:
        """Commit an applied candidate; dates are the mission's, so that every try makes the same commit."""
        candidate, _ = await self.candidate(ref)
        symptom = next((entry["description"] for entry in job.mission.symptoms), job.mission.subsystem_id)
        title = symptom.splitlines()[0][:72]
        return await commit_patch(
            job.mirror,
            applied,
            job.author,
            self.key,
            message=f"{title}\n\nCandidate {ref.candidate} of {ref.mission_id}.",
            date=job.mission.created_at,
            author=candidate.author,
        )

    async def candidate(self, ref: StageRef) -> tuple[Candidate, bytes | None]:
        """Read the stage's candidate, with its diff if it is one."""
        async with self.db.workspace(ref.workspace_id) as session:
            found = (await candidates.of_mission(session, ref.workspace_id, ref.mission_id))[ref.candidate]
            try:
                diff = await blobs.get(session, ref.workspace_id, found.digest) if found.digest else None
            except Gone as error:
                raise StageFailed(error.code, error.message) from None
        return found, diff
