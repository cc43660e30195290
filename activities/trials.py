"""Runs a mission's commands on this host: in its checkouts, in the environment built from its base commit."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path

from activities.benches import Benches, Job
from activities.logs import Log
from activities.recording import outlasting
from activities.workbench.command import CommandRunner
from activities.workbench.environments import Environment, Environments, EnvironmentSpec
from activities.workbench.locks import exclusive
from activities.workbench.scanners import Change, scan_sarif
from activities.workbench.trees import remove_tree
from activities.workbench.trials import Place, run_probe, run_stress, run_trial
from models.contracts.missions import TestResult
from models.domain.canonical import canonical_json, digest_of
from models.domain.errors import StageFailed
from models.domain.repo_config import Commands
from models.domain.scanning import Scan
from models.domain.stress import StressRun
from models.domain.testing import TestCase, TestReport, leftovers
from models.store import base_results, blobs

MAX_STORED_RESULTS, MAX_STORED_BYTES = 20_000, 4 * 1024 * 1024
"""Test cases kept as rows of one run, and the bytes of their names; the report in evidence holds all."""


class Trials:
    """One per worker process: `at_once` bounds the commands that run side by side."""

    def __init__(self, benches: Benches, runner: CommandRunner, environments: Environments, at_once: int) -> None:
        self._benches, self._runner, self._environments = benches, runner, environments
        self._slots = asyncio.Semaphore(at_once)

    async def base(self, job: Job, base_sha: str, log: Log) -> TestReport:
        """Give the test report of a base commit, run at most once per commit, commands and environment."""
        environment = await self._environment(job, base_sha, log)
        key = digest_of([base_sha, environment.key, job.commands.model_dump(mode="json"), self._runner.isolation.value])
        known = await self._known(job, key)
        if known is not None:
            await log.line(f"the tests of {base_sha[:12]} are known")
            return known
        report = await self.test(job, "base", base_sha, base_sha, log)
        # A run that was stopped, or that told nothing, says more about the moment than about the commit.
        if not report.stopped and not report.trouble:
            await self._remember(job, key, report)
        return report

    async def test(
        self, job: Job, tree: str, sha: str, base_sha: str, log: Log, only: Sequence[str] = ()
    ) -> TestReport:
        """Run the tests at `sha` in a fresh checkout `tree`: what an earlier run left there must not count."""
        environment = await self._environment(job, base_sha, log)
        async with self._alone(job) as lock:
            await log.line(f"testing {tree} at {sha[:12]}")
            place = await self._place(job, tree, sha, environment, lock)
            trial = await run_trial(self._runner, place, _commands(job, environment), log.write, only)
            await _tell_end(trial.result.seconds, trial.report, log)
            return trial.report

    async def stress(self, job: Job, tree: str, sha: str, base_sha: str, log: Log) -> StressRun:
        """Install the project at `sha` and run the stress command."""
        environment = await self._environment(job, base_sha, log)
        async with self._alone(job) as lock:
            await log.line(f"stressing {tree} at {sha[:12]}")
            place = await self._place(job, tree, sha, environment, lock)
            await self._install(place, _commands(job, environment), log)
            run = await run_stress(self._runner, place, job.commands, log.write)
            await _tell_end(run.seconds, run, log)
            return run

    async def probe(self, job: Job, tree: str, sha: str, log: Log) -> dict[str, float]:
        """Run the repository's probe at `sha` in a fresh checkout `tree`; returns values by metric id."""
        environment = await self._environment(job, job.mission.context["git_sha"], log)
        async with self._alone(job) as lock:
            place = await self._place(job, tree, sha, environment, lock)
            return await run_probe(self._runner, place, job.commands, log.write)

    async def scan(self, job: Job, base_sha: str, head_sha: str, change: Change, log: Log) -> Scan:
        """Run the registered scanner at the base and at the patch."""
        environment = await self._environment(job, base_sha, log)
        async with self._alone(job) as lock:
            base = await self._place(job, "base", base_sha, environment, lock)
            head = await self._place(job, "patched", head_sha, environment, lock)
            line, seconds = job.commands.scan or "", job.commands.timeout
            return await scan_sarif(self._runner, base, head, line, seconds, change)

    @asynccontextmanager
    async def _alone(self, job: Job) -> AsyncIterator[int]:
        """Wait for a place among the commands of this host, and for an earlier try that still works in the bench."""
        async with self._slots, exclusive(job.bench.root / ".commands") as lock:
            yield lock

    async def _environment(self, job: Job, base_sha: str, log: Log) -> Environment:
        """Build, or find, the environment of a base commit; all that runs for a stage begins here."""
        log.isolation = self._runner.isolation.value
        source = await job.bench.open("source", base_sha)
        commands = job.commands
        spec = EnvironmentSpec(job.mission.workspace_id, commands.setup, commands.test, commands.timeout)

        async def fresh() -> Path:
            return (await job.bench.open("setup", base_sha, fresh=True)).path

        async with self._slots:
            return await self._environments.ensure(spec, source.path, fresh, log.write)

    async def _install(self, place: Place, commands: Commands, log: Log) -> None:
        if not commands.install:
            return
        result = await self._runner.run(place.command(commands.install, commands.timeout), log.write)
        if not result.ok:
            raise StageFailed("install_failed", f"install ended with {result.stopped or result.exit_code}")

    async def _place(self, job: Job, tree: str, sha: str, environment: Environment, lock: int) -> Place:
        """Make a checkout of `sha`, with folders of its own for reports and for what is installed from it."""
        checkout = await job.bench.open(tree, sha, fresh=True)
        out, site = job.bench.root / f"{tree}.out", job.bench.root / f"{tree}.site"
        for folder in (out, site):
            await remove_tree(folder, lock)
            folder.mkdir()
        return Place(checkout.path, out, environment.mounts_with(site), environment.env)

    async def _known(self, job: Job, key: str) -> TestReport | None:
        mission = job.mission
        async with self._benches.db.workspace(mission.workspace_id) as session:
            digest = await base_results.find(session, mission.workspace_id, mission.repository_id, key)
            content = await blobs.get(session, mission.workspace_id, digest) if digest else None
        return await asyncio.to_thread(TestReport.model_validate_json, content) if content else None

    async def _remember(self, job: Job, key: str, report: TestReport) -> None:
        mission = job.mission
        content = await asyncio.to_thread(report_bytes, report)

        async def keep() -> None:
            async with self._benches.db.workspace(mission.workspace_id) as session:
                digest = await blobs.put(session, mission.workspace_id, content)
                await base_results.keep(session, mission.workspace_id, mission.repository_id, key, digest)

        await outlasting(keep)


async def _tell_end(seconds: float, run: TestReport | StressRun, log: Log) -> None:
    if run.stopped:
        await log.line(f"stopped after {seconds:.0f} s: {run.stopped}")
    for told in leftovers("the command", run.left_behind):
        await log.line(told)


def _commands(job: Job, environment: Environment) -> Commands:
    """The mission's commands; where none installs the project, the way that was recognised when it was set up."""
    commands = job.commands
    return commands if commands.install else commands.model_copy(update={"install": environment.install or None})


def report_bytes(report: TestReport) -> bytes:
    """Write a report down as evidence."""
    return canonical_json(report.model_dump(mode="json"))


def stored_results(run: str, report: TestReport, wanted: Collection[str] = ()) -> tuple[TestResult, ...]:
    """Turn a report's cases into the rows that a mission keeps (MISS-15): of very many at least the `wanted` ones."""
    cases = sorted(report.cases, key=lambda case: case.id not in wanted)
    return tuple(
        TestResult.model_validate(
            {"name": case.id, "outcome": case.outcome.value, "duration_ms": case.seconds * 1000, "run": run}
        )
        for case in cases[: _stored(cases)]
    )


def _stored(cases: Sequence[TestCase]) -> int:
    sizes = accumulate(len(case.id.encode()) for case in cases[:MAX_STORED_RESULTS])
    return sum(size <= MAX_STORED_BYTES for size in sizes)
