"""What the repository's probe measures of a candidate, before stage 7 judges it by that."""

from functools import partial

from temporalio import activity

from activities.benches import Benches, Job
from activities.heartbeats import heartbeating
from activities.logs import StageLog
from activities.recording import StageRecorder, outlasting
from activities.records import facts_before, record_fact
from activities.trials import Trials
from models.contracts.missions import AcceptanceCriteria
from models.contracts.pipeline import StageInput
from models.domain.errors import StageFailed
from models.store import metric_windows, probes, stages
from models.store.probes import Probed
from models.tables.missions import Stage


class ProbeActivities:
    """A probe is for targets: a mission without any is not measured before its merge."""

    def __init__(self, recorder: StageRecorder, benches: Benches, trials: Trials) -> None:
        self._recorder, self._db, self._benches, self._trials = recorder, recorder.db, benches, trials

    async def probe_candidate(self, task: StageInput) -> None:
        """Begin stage 7 with what the probe says at the candidate, once; its end is for the round to settle.

        What only touches Postgres and comes before it is recorded first, so that stages begin in their order.
        """
        async with heartbeating():
            job = await self._benches.open(task.ref)
            if not AcceptanceCriteria.model_validate(job.mission.acceptance_criteria).metric_targets:
                return
            async with self._db.workspace(task.ref.workspace_id) as session:
                record = await stages.load(session, task.ref)
                if record and probes.noted(record):
                    return
                for earlier in facts_before(task, stressed=job.commands.stress is not None):
                    await record_fact(self._recorder, session, job.mission, earlier)
                record = await stages.begin(session, task.ref, activity.info().attempt)
            if record.ended_at is None:
                async with StageLog(self._db, record.workspace_id, record.log_id or "") as log:
                    await self._probe(job, task, record, log)

    async def _probe(self, job: Job, task: StageInput, record: Stage, log: StageLog) -> None:
        async def work(log: StageLog, record: Stage) -> dict[str, float]:
            await self._benches.require_head(job, task)
            await log.line(f"probing patched at {task.head_sha[:12]}")
            return await self._trials.probe(job, "patched", task.head_sha, log)

        measured, broken = dict[str, float](), ""
        try:
            measured = await self._recorder.patiently(record, log, work)
        except StageFailed as failure:
            broken = failure.message
            await log.line(broken)
        await log.flush()
        await outlasting(partial(self._keep, record, measured, Probed(broken, log.isolation)))

    async def _keep(self, record: Stage, measured: dict[str, float], probed: Probed) -> None:
        async with self._db.workspace(record.workspace_id) as session:
            if await probes.note(session, record, probed):
                source = f"probe/before/{record.round}/{record.candidate}"
                await metric_windows.add(session, record.workspace_id, record.mission_id, source, measured)
