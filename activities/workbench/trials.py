"""Runs a repository's own commands in the sandbox and reads what they leave: tests, stress runs, probes.

The command is hostile until proven otherwise: what it prints and writes is data, read within bounds.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from activities.workbench.cases import TooLarge
from activities.workbench.command import (
    OUT,
    WORKSPACE,
    Command,
    CommandResult,
    CommandRunner,
    Limits,
    Mount,
    OnOutput,
    Stopped,
)
from activities.workbench.gotest import GoTestReader
from activities.workbench.reports import clear, discard, read_files, read_junit, refused
from models.domain.command_lines import narrowed
from models.domain.errors import InvalidInput, StageFailed
from models.domain.metrics import MAX_PROBE_BYTES, parse_measurements
from models.domain.repo_config import Commands
from models.domain.stress import StressRun
from models.domain.testing import Source, TestCase, TestReport

STRESS_METRICS = "metrics.json"
"""A stress command may leave what it measured in this file of `/out`."""

# A file that cannot be imported must not hide the results of the others, nor a first failure those after it; with
# this family of JUnit, cases say which file they are from.
_PYTEST_OPTIONS = "-o junit_family=xunit1 --continue-on-collection-errors --maxfail=0"

_STOPPED = {
    Stopped.TIMEOUT: "it ran longer than {0.seconds:g} s",
    Stopped.MEMORY: "it took more than {0.memory} bytes of memory",
    Stopped.PROCESSES: "it started more than {0.processes} processes",
    Stopped.DISK: "it wrote more than {0.disk} bytes",
    Stopped.OUTPUT: "it printed more than {0.output} bytes",
    Stopped.CANCELED: "it was canceled",
}


@dataclass(frozen=True)
class Place:
    """Where commands run: a worktree, a folder for reports (emptied before each run), and the built environment."""

    tree: Path
    out: Path
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def command(self, line: str, seconds: float) -> Command:
        """Ask for a command line here."""
        options = f"{self.env.get('PYTEST_ADDOPTS', '')} {_PYTEST_OPTIONS}".strip()
        return Command(
            line=line,
            mounts=(Mount(self.tree, WORKSPACE, writable=True), Mount(self.out, OUT, writable=True), *self.mounts),
            env={**self.env, "PYTEST_ADDOPTS": options},
            limits=replace(self.limits, seconds=seconds),
        )


@dataclass(frozen=True)
class Trial:
    """One run of the tests: what they said, and how the command that decided it ended."""

    report: TestReport
    result: CommandResult


async def run_trial(
    runner: CommandRunner,
    place: Place,
    commands: Commands,
    on_output: OnOutput,
    only: Sequence[str] = (),
    installed: bool = False,
) -> Trial:
    """Install the project and run its tests.

    A failed install and a stopped command are results too: the report says so in `trouble` and `stopped`.

    Args:
        only: ids of tests to repeat; the run may cover more, never less.
        installed: an earlier trial in this worktree has installed the project.

    Raises:
        StageFailed: `report_refused`, when a report is not one or would cost too much to read.
    """
    left_behind = 0
    if commands.install and not installed:
        result = await _run(runner, place, commands.install, commands.timeout, on_output)
        if not result.ok:
            return Trial(_failed_install(commands, result, place), result)
        left_behind = result.left_behind
    line = narrowed(commands.test, only, lambda path: os.path.isfile(place.tree / path)) if only else commands.test
    await _forget_reports(place, commands)
    reader = GoTestReader()

    async def listen(data: bytes) -> None:
        if commands.results is Source.GOTEST:
            reader.feed(data)
        await on_output(data)

    result = await _run(runner, place, line, commands.timeout, listen)
    cases = await _cases(place, commands, result, reader)
    trouble = "" if cases or commands.results is Source.EXIT_CODE else _missing(commands, result, reader)
    report = TestReport(
        source=commands.results,
        cases=cases,
        exit_code=result.exit_code,
        stopped=_why_stopped(result, place, commands.timeout),
        trouble=trouble,
        left_behind=left_behind + result.left_behind,
    )
    return Trial(report, result)


async def run_stress(runner: CommandRunner, place: Place, commands: Commands, on_output: OnOutput) -> StressRun:
    """Run the stress command, and read what it measured if it says so.

    Raises:
        StageFailed: `report_refused` or `measurements_invalid`, when its `metrics.json` is none.
    """
    await clear(place.out)
    result = await _run(runner, place, commands.stress or "", commands.timeout, on_output)
    written = await asyncio.to_thread(read_files, place.out, STRESS_METRICS)
    measured = _measurements(written[STRESS_METRICS], STRESS_METRICS) if written else {}
    stopped = _why_stopped(result, place, commands.timeout)
    return StressRun(
        seconds=result.seconds,
        exit_code=result.exit_code,
        stopped=stopped,
        measured=measured,
        left_behind=result.left_behind,
    )


async def run_probe(runner: CommandRunner, place: Place, commands: Commands, on_output: OnOutput) -> dict[str, float]:
    """Run the probe and read the values it prints.

    Raises:
        StageFailed: `probe_failed`, or `measurements_invalid` when it printed anything else.
    """
    printed = bytearray()

    async def listen(data: bytes) -> None:
        printed.extend(data[: MAX_PROBE_BYTES + 1 - len(printed)])
        await on_output(data)

    result = await _run(runner, place, commands.probe or "", commands.timeout, listen)
    if not result.ok:
        raise StageFailed("probe_failed", f"The probe {_ending(result, place, commands.timeout)}.")
    return _measurements(bytes(printed), "what the probe printed")


async def _run(runner: CommandRunner, place: Place, line: str, seconds: float, on_output: OnOutput) -> CommandResult:
    return await runner.run(place.command(line, seconds), on_output)


async def _forget_reports(place: Place, commands: Commands) -> None:
    """Take away reports that were there before the run: committed ones would count as results."""
    await clear(place.out)
    if commands.junit and not commands.junit.startswith(OUT + "/"):
        await asyncio.to_thread(discard, place.tree, commands.junit)


async def _cases(place: Place, commands: Commands, result: CommandResult, reader: GoTestReader) -> tuple[TestCase, ...]:
    if commands.results is Source.GOTEST:
        return await asyncio.to_thread(_told, reader)
    if commands.results is Source.EXIT_CODE or not commands.junit or result.stopped:
        return ()
    inside = commands.junit.removeprefix(OUT + "/")
    root = place.tree if inside == commands.junit else place.out
    return await asyncio.to_thread(read_junit, root, inside)


def _told(reader: GoTestReader) -> tuple[TestCase, ...]:
    try:
        return reader.cases()
    except TooLarge as error:
        raise refused("go test -json", str(error)) from None


def _missing(commands: Commands, result: CommandResult, reader: GoTestReader) -> str:
    """Say why there is no result by name."""
    if result.stopped:
        return ""
    code = f"the command ended with code {result.exit_code}"
    if commands.results is Source.GOTEST:
        return f"{code}: {reader.last_words}" if reader.last_words else code
    return f"{code}, and no test case is in {commands.junit!r}"


def _failed_install(commands: Commands, result: CommandResult, place: Place) -> TestReport:
    return TestReport(
        source=commands.results,
        exit_code=result.exit_code,
        stopped=_why_stopped(result, place, commands.timeout),
        trouble=f"install {_ending(result, place, commands.timeout)}",
        left_behind=result.left_behind,
    )


def _ending(result: CommandResult, place: Place, seconds: float) -> str:
    stopped = _why_stopped(result, place, seconds)
    return f"was stopped: {stopped}" if stopped else f"ended with code {result.exit_code}"


def _why_stopped(result: CommandResult, place: Place, seconds: float) -> str:
    limits = replace(place.limits, seconds=seconds)
    return _STOPPED[result.stopped].format(limits) if result.stopped else ""


def _measurements(data: bytes, name: str) -> dict[str, float]:
    try:
        return parse_measurements(data, name)
    except InvalidInput as error:
        raise StageFailed(error.code, error.message) from None
