"""Stage 9 and the rollback: the branch ends up with exactly one merge of the mission, and at most one revert."""

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.benches import Benches, Job
from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.recording import StageRecorder, Verdict
from activities.workbench.merging import MergeConflict, Merged, RevertConflict, find_earlier, merge, revert
from activities.workbench.pushing import PushRefused, TargetDirty, TargetMoved
from models.contracts.pipeline import MergeInput, MergeResult, StageInput, StageRef
from models.domain.canonical import digest_of
from models.domain.errors import MissionControlError, NotFound, StageFailed, Unavailable
from models.domain.stages import StageStatus
from models.domain.states import DecisionKind
from models.store import governance, merge_slots, running, stages
from models.store.policies import PolicyBook
from models.tables.missions import Mission, Stage

MAX_REASON = 200
"""Characters of a line of a commit message: what is longer is in the mission's record."""


class SlotLost(MissionControlError):
    """The fence refuses our token: it let a younger one pass."""


class LawChanged(Exception):
    """The policy in force makes something else of the merge than the version that let it pass."""


class MergeActivities:
    """Writes to the registered repository; nothing else does."""

    def __init__(self, recorder: StageRecorder, benches: Benches, book: PolicyBook) -> None:
        self._recorder, self._benches, self._book = recorder, benches, book

    @activity.defn
    async def merge(self, task: MergeInput) -> MergeResult:
        """Merge the mission's commit, or find that an earlier try did."""

        async def work(log: StageLog, record: Stage) -> Verdict:
            return await self._merge(task, record)

        return MergeResult.model_validate(await self._recorder.run(task, work, _failed))

    @activity.defn
    async def roll_back(self, task: MergeInput) -> MergeResult:
        """Revert exactly the mission's merge, or find that an earlier try did."""
        async with heartbeating():
            job = await self._benches.open(task.ref)
            await self._pass_fence(job, task.token)
            try:
                job.require_write()
                done = await revert(
                    job.mirror,
                    job.mission.branch,
                    merge_sha=task.merge_sha,
                    mission=job.author,
                    reason=_one_line(task.reason) or f"{task.ref.mission_id} did not hold in observation.",
                    date=job.mission.merged_at or job.mission.created_at,
                    key=self._benches.key,
                )
            except (RevertConflict, TargetDirty, PushRefused, NotFound, StageFailed) as refused:
                return MergeResult(status=StageStatus.FAILED, reason=refused.message)
            except TargetMoved as moved:
                raise Unavailable("branch_keeps_moving", moved.message) from moved
            async with self._benches.db.workspace(task.ref.workspace_id) as session:
                await running.record_revert(session, task.ref.workspace_id, task.ref.mission_id, done.sha)
            return MergeResult(status=StageStatus.PASSED, merge_sha=done.sha)

    async def _merge(self, task: MergeInput, record: Stage) -> Verdict:
        ref = task.ref
        job = await self._benches.open(ref)
        job.require_write()
        stage = StageInput(ref=ref, base_sha=task.base_sha, head_sha=task.head_sha)
        await self._benches.require_head(job, stage)
        try:
            merged = await self._merge_or_find(job, task, record)
        except TargetMoved as moved:
            return _anew(f"{job.mission.branch} has moved to {moved.head[:12]}", moved.head)
        except LawChanged:
            return _anew("the policy in force judges it otherwise than when it passed", task.base_sha)
        answer = MergeResult(status=StageStatus.PASSED, merge_sha=merged.sha)
        found = " (found: an earlier try made it)" if merged.already_there else ""

        async def also(session: AsyncSession) -> None:
            await running.record_merge(session, ref, merged.sha, activity.info().attempt)

        return Verdict(
            answer,
            StageStatus.PASSED,
            f"merged into {job.mission.branch} as {merged.sha[:12]}{found}",
            details={"merge_sha": merged.sha, "base_sha": merged.base, "token": task.token},
            git_sha=merged.sha,
            also=also,
        )

    async def _merge_or_find(self, job: Job, task: MergeInput, record: Stage) -> Merged:
        """Merge under the fence; where we may not now, an earlier try of ours may have been let, merged, and died."""
        try:
            await self._pass_fence(job, task.token)
            return await self._push(job, task, record, await self._evidence(task))
        except (SlotLost, LawChanged):
            found = await find_earlier(job.mirror, job.mission.branch, task.base_sha, job.author, self._benches.key)
            if found is None:
                raise
            return found

    async def _push(self, job: Job, task: MergeInput, record: Stage, evidence: str) -> Merged:
        async def allow() -> None:
            if activity.info().attempt == 1:  # what an earlier try sent was let pass, and may arrive yet
                await self._require_same_law(task.ref, job.mission)

        try:
            return await merge(
                job.mirror,
                job.mission.branch,
                base=task.base_sha,
                topic=task.head_sha,
                mission=job.author,
                evidence=evidence,
                date=record.started_at,
                key=self._benches.key,
                allow=allow,
            )
        except (MergeConflict, TargetDirty, PushRefused, NotFound) as refused:
            raise StageFailed(refused.code, refused.message, **refused.details) from None

    async def _evidence(self, task: MergeInput) -> str:
        """Digest what the merge rests on: the signed records of this round's stages."""
        ref = task.ref
        async with self._benches.db.workspace(ref.workspace_id) as session:
            done = await stages.of_round(session, ref.workspace_id, ref.mission_id, ref.round)
        return digest_of([stage["digest"] for stage in done if stage["digest"] is not None])

    async def _require_same_law(self, ref: StageRef, mission: Mission) -> None:
        kind, workspace = DecisionKind.GOVERNANCE, ref.workspace_id
        verdict_id = governance.decision_id(ref, kind)
        async with self._benches.db.workspace(workspace) as session:
            agent = (await governance.grounds(session, ref, mission)).agent
            level = agent.level if agent else None
            if await self._book.judges_otherwise(session, workspace, verdict_id, kind, level):
                raise LawChanged

    async def _pass_fence(self, job: Job, token: int) -> None:
        mission = job.mission
        fence = await merge_slots.pass_fence(self._benches.db, mission.workspace_id, mission.mission_id, token)
        if not fence.is_open:
            raise MissionControlError("mission_ended", "the mission was closed from outside: it writes no more")
        if not fence.passed:
            raise SlotLost("slot_lost", "another mission has been given the merge slot since")


def _anew(reason: str, head: str) -> Verdict:
    """Nothing was merged: the mission proves itself on the head first, as its next round."""
    answer = MergeResult(status=StageStatus.SKIPPED, reason=reason, moved_to=head)
    return Verdict(answer, StageStatus.SKIPPED, reason, git_sha=head)


def _one_line(text: str) -> str:
    """Fit a reason into a commit message, where a line of its own could pass for a trailer."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(plain.split())[:MAX_REASON].rstrip()


def _failed(reason: str) -> MergeResult:
    return MergeResult(status=StageStatus.FAILED, reason=reason)
