"""Runs a mission's commands on this host: in its checkouts, in the environment built from its base commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from activities.benches import Benches, Job
from activities.logs import StageLog
from activities.workbench.command import CommandRunner, OnOutput
from activities.workbench.environments import Environment, Environments, EnvironmentSpec
from activities.workbench.locks import exclusive
from activities.workbench.scanners import Change, scan_sarif
from activities.workbench.trials import Place, Trial, run_probe, run_stress, run_trial
from models.contracts.missions import TestResult
from models.domain.canonical import canonical_json, digest_of
from models.domain.errors import StageFailed
from models.domain.scanning import Scan
from models.domain.stress import StressRun
from models.domain.testing import TestReport
from models.store import base_results, blobs

MAX_STORED_RESULTS = 20_000
"""Test cases kept as rows of one run; the report in evidence holds all."""


class Trials:
    """One per worker process: `at_once` bounds the commands that run side by side."""

    def __init__(self, benches: Benches, runner: CommandRunner, environments: Environments, at_once: int) -> None:
        self._benches, self._runner, self._environments = benches, runner, environments
        self._slots = asyncio.Semaphore(at_once)

    async def base(self, job: Job, base_sha: str, log: StageLog) -> TestReport:
        """Give the test report of a base commit, run at most once per commit, commands and environment."""
        environment = await self._environment(job, base_sha, log.write)
        key = digest_of([base_sha, environment.key, job.commands.model_dump(mode="json"), self._runner.isolation.value])
        known = await self._known(job, key)
        if known is not None:
            await log.line(f"the tests of {base_sha[:12]} are known")
            return known
        trial = await self.test(job, "base", base_sha, base_sha, log)
        if not trial.report.stopped:
            await self._remember(job, key, trial.report)
        return trial.report

    async def test(
        self, job: Job, tree: str, sha: str, base_sha: str, log: StageLog, only: Sequence[str] = ()
    ) -> Trial:
        """Run the tests at `sha` in the checkout `tree`; a repeat of some tests uses the checkout as it is."""
        environment = await self._environment(job, base_sha, log.write)
        async with self._alone(job):
            await log.line(f"testing {tree} at {sha[:12]}")
            place = await self._place(job, tree, sha, environment, fresh=not only)
            installed = _installed(job, tree, sha)
            trial = await run_trial(self._runner, place, job.commands, log.write, only, installed=installed)
            if not trial.report.trouble:
                _mark_installed(job, tree, sha)
            return trial

    async def stress(self, job: Job, tree: str, sha: str, base_sha: str, log: StageLog) -> StressRun:
        """Run the stress command at `sha`, after the tests have installed the project there."""
        environment = await self._environment(job, base_sha, log.write)
        async with self._alone(job):
            await log.line(f"stressing {tree} at {sha[:12]}")
            place = await self._place(job, tree, sha, environment)
            if job.commands.install and not _installed(job, tree, sha):
                await self._install(job, place, log)
            return await run_stress(self._runner, place, job.commands, log.write)

    async def probe(self, job: Job, sha: str) -> dict[str, float]:
        """Run the repository's probe at `sha`; returns values by metric id."""
        environment = await self._environment(job, job.mission.context["git_sha"], _unheard)
        async with self._alone(job):
            place = await self._place(job, "merged", sha, environment)
            return await run_probe(self._runner, place, job.commands, _unheard)

    async def scan(self, job: Job, base_sha: str, head_sha: str, change: Change, log: StageLog) -> Scan:
        """Run the registered scanner at the base and at the patch."""
        environment = await self._environment(job, base_sha, log.write)
        async with self._alone(job):
            base = await self._place(job, "base", base_sha, environment)
            head = await self._place(job, "patched", head_sha, environment)
            line, seconds = job.commands.scan or "", job.commands.timeout
            return await scan_sarif(self._runner, base, head, line, seconds, change)

    @asynccontextmanager
    async def _alone(self, job: Job) -> AsyncIterator[None]:
        """Wait for a place among the commands of this host, and for an earlier try that still works in the bench."""
        async with self._slots, exclusive(job.bench.root / ".commands"):
            yield

    async def _environment(self, job: Job, base_sha: str, on_output: OnOutput) -> Environment:
        """Build, or find, the environment of a base commit."""
        tree = await job.bench.open("setup", base_sha)
        spec = EnvironmentSpec(job.mission.workspace_id, job.commands.setup)
        return await self._environments.ensure(spec, tree.path, on_output)

    async def _install(self, job: Job, place: Place, log: StageLog) -> None:
        command = place.command(job.commands.install or "", job.commands.timeout)
        result = await self._runner.run(command, log.write)
        if not result.ok:
            raise StageFailed("install_failed", f"install ended with {result.stopped or result.exit_code}")

    async def _place(self, job: Job, tree: str, sha: str, environment: Environment, *, fresh: bool = False) -> Place:
        if fresh:
            _marker(job, tree).unlink(missing_ok=True)
        checkout = await job.bench.open(tree, sha, fresh=fresh)
        out = job.bench.root / f"{tree}.out"
        out.mkdir(exist_ok=True)
        return Place(checkout.path, out, environment.mounts, environment.env)

    async def _known(self, job: Job, key: str) -> TestReport | None:
        mission = job.mission
        async with self._benches.db.workspace(mission.workspace_id) as session:
            digest = await base_results.find(session, mission.workspace_id, mission.repository_id, key)
            content = await blobs.get(session, mission.workspace_id, digest) if digest else None
        return TestReport.model_validate_json(content) if content else None

    async def _remember(self, job: Job, key: str, report: TestReport) -> None:
        mission = job.mission
        async with self._benches.db.workspace(mission.workspace_id) as session:
            digest = await blobs.put(session, mission.workspace_id, report_bytes(report))
            await base_results.keep(session, mission.workspace_id, mission.repository_id, key, digest)


def _marker(job: Job, tree: str) -> Path:
    """Tells at which commit the project was installed in a checkout; beside it, where no command can write."""
    return job.bench.root / f".{tree}.installed"


def _installed(job: Job, tree: str, sha: str) -> bool:
    marker = _marker(job, tree)
    return marker.exists() and marker.read_text() == sha


def _mark_installed(job: Job, tree: str, sha: str) -> None:
    _marker(job, tree).write_text(sha)


def report_bytes(report: TestReport) -> bytes:
    """Write a report down as evidence."""
    return canonical_json(report.model_dump(mode="json"))


def stored_results(run: str, report: TestReport) -> tuple[TestResult, ...]:
    """Turn a report's cases into the rows that a mission keeps (MISS-15)."""
    return tuple(
        TestResult.model_validate(
            {"name": case.id, "outcome": case.outcome.value, "duration_ms": case.seconds * 1000, "run": run}
        )
        for case in report.cases[:MAX_STORED_RESULTS]
    )


async def _unheard(data: bytes) -> None:
    """Let output go."""
