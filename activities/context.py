"""How a round begins: what it stands on (commit, configuration, commands), which host takes it, and its code there."""

from datetime import timedelta
from importlib.metadata import version
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.benches import Benches, Job
from activities.code import CodeActivities
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from models.configuration import config_hash as configuration_hash
from models.contracts.missions import AcceptanceCriteria
from models.contracts.pipeline import CloseInput, HostQueue, PipelineContext, StageInput, StageRef
from models.domain.canonical import digest_of
from models.domain.errors import InvalidInput, MissionControlError, NotFound, StageFailed, TooLarge
from models.domain.plain_yaml import MAX_BYTES as MAX_FILE_BYTES
from models.domain.repo_config import CONFIG_FILE, Commands, RepoConfig, detect, effective_commands, parse_repo_config
from models.domain.stages import StageName, StageStatus
from models.domain.states import UNDER_WAY, Severity
from models.store import candidates, running
from models.store.database import Database
from models.tables.missions import Stage

POLL_AT_MOST = timedelta(seconds=60)
"""Between two looks in the observation window: the least of this and a third of the window (requirements 5.2)."""


class ContextActivities:
    """Work any host may take."""

    def __init__(self, recorder: StageRecorder, benches: Benches, code: CodeActivities, host_queue: str) -> None:
        self._recorder, self._benches, self._code, self._host_queue = recorder, benches, code, host_queue
        self._db: Database = recorder.db

    @property
    def is_asked_by_name(self) -> bool:
        """Whether the present activity was asked of this host, and not of any."""
        return activity.info().task_queue == self._host_queue

    async def open(self, task: StageInput) -> PipelineContext:
        """Stages 1 and 2: settle what the round stands on, and have its code here, whoever began it."""
        context = await self.fetch_context(task)
        if context.status is StageStatus.FAILED:
            return context
        context = context.model_copy(update={"host_queue": self._host_queue})
        pull = task.ref.model_copy(update={"stage": StageName.PULL_CODE})
        pulled = await self._code.pull_code(StageInput(ref=pull, base_sha=context.base_sha))
        if pulled.failed:
            failed = {"status": pulled.status, "reason": pulled.reason, "failed_stage": StageName.PULL_CODE}
            return context.model_copy(update=failed)
        return context

    async def fetch_context(self, task: StageInput) -> PipelineContext:
        """Stage 1: start the mission and settle what it works with; this host takes it."""
        ref = task.ref
        await self._start(ref, task.first_run_id or activity.info().workflow_run_id or "")

        async def work(log: StageLog, record: Stage) -> Verdict:
            return await self._look(ref)

        data = await self._recorder.run(
            task, work, lambda reason: PipelineContext(status=StageStatus.FAILED, reason=reason)
        )
        return PipelineContext.model_validate(data)

    @activity.defn
    async def take_over(self, task: CloseInput) -> HostQueue:
        """Become the host of a mission whose own is gone."""
        return HostQueue(name=self._host_queue)

    async def _start(self, ref: StageRef, run_id: str) -> None:
        price = self._recorder.second((await self._db.now(ref.workspace_id)).date())
        mission = await running.start(self._db, ref.workspace_id, ref.mission_id, run_id, price)
        if mission.status not in UNDER_WAY or mission.run_id != run_id:
            raise MissionControlError("mission_not_open", f"{ref.mission_id} is {mission.status}: it runs only once")

    async def _look(self, ref: StageRef) -> Verdict:
        try:
            job = await self._benches.job(ref.workspace_id, ref.mission_id)
            await job.mirror.fetch()
            base_sha = await job.mirror.head(job.mission.branch)
            commands = await self._commands(job, base_sha)
        except (InvalidInput, NotFound, TooLarge) as error:
            raise StageFailed(error.code, error.message, **error.details) from None
        config_hash = self._config_hash(job, commands)
        context = self._context(job, base_sha, config_hash)
        chosen = commands.model_dump(mode="json")

        async def also(session: AsyncSession) -> None:
            mission = job.mission
            await running.fill_context(session, mission.workspace_id, mission.mission_id, context, chosen)

        answer = await self._answer(job, base_sha, config_hash, commands)
        return Verdict(
            answer,
            StageStatus.PASSED,
            f"{job.mission.branch} is at {base_sha[:12]}",
            details=context | {"commands": chosen},
            git_sha=base_sha,
            config_hash=config_hash,
            also=also,
        )

    def _config_hash(self, job: Job, commands: Commands) -> str:
        """Name the rules the mission is judged by: the installation's configuration, the commands, and the target."""
        rules = {
            "configuration": configuration_hash(self._benches.settings.config_dir),
            "commands": commands.model_dump(mode="json"),
            "env": job.mission.env,
            "protected": job.mission.protected,
        }
        return digest_of(rules)

    async def _commands(self, job: Job, base_sha: str) -> Commands:
        """Settle the commands: those registered, those of the file at the base, or what the files there show."""
        content = await job.mirror.read_file(base_sha, CONFIG_FILE, MAX_FILE_BYTES)
        file = parse_repo_config(content) if content is not None else None
        paths = await job.mirror.paths(base_sha)
        registered = RepoConfig.model_validate(job.repository.commands)
        override = RepoConfig.model_validate(job.mission.overrides) if job.mission.overrides else None
        return effective_commands(registered, file, detect(paths), override)

    def _context(self, job: Job, base_sha: str, config_hash: str) -> dict[str, Any]:
        return {
            "git_sha": base_sha,
            "config_hash": config_hash,
            "env": job.mission.env,
            "branch": job.mission.branch,
            "version": version("mission-control"),
        }

    async def _answer(self, job: Job, base_sha: str, config_hash: str, commands: Commands) -> PipelineContext:
        mission = job.mission
        window = timedelta(
            minutes=AcceptanceCriteria.model_validate(mission.acceptance_criteria).observation_window_minutes
        )
        async with self._db.workspace(mission.workspace_id) as session:
            count = len(await candidates.of_mission(session, mission.workspace_id, mission.mission_id))
        return PipelineContext(
            status=StageStatus.PASSED,
            repository_id=mission.repository_id,
            branch=mission.branch,
            base_sha=base_sha,
            config_hash=config_hash,
            host_queue=self._host_queue,
            severity=Severity(mission.severity),
            created_at=mission.created_at,
            candidates=count,
            has_stress=commands.stress is not None,
            has_probe=commands.probe is not None,
            observation_seconds=window.total_seconds(),
            poll_seconds=min(POLL_AT_MOST, window / 3).total_seconds(),
        )
