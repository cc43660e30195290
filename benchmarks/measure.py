"""Comparing two sides fairly: they take turns, and only their ratios are judged, because machines drift."""

import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

Numbers = Mapping[str, float]
Side = Callable[[], Awaitable[Numbers]]


@dataclass(frozen=True)
class Goal:
    """Which number of a round is compared, and how ours must stand to the other side's; None: it is only told.

    Where there is no other side, the number itself must reach `ratio`.
    """

    number: str
    better: Literal["higher", "lower"]
    ratio: float | None

    def is_met_by(self, value: float) -> bool:
        """Whether a number reaches it."""
        if self.ratio is None:
            return True
        return value >= self.ratio if self.better == "higher" else value < self.ratio

    def __str__(self) -> str:
        if self.ratio is None:
            return "none"
        return f"{'at least' if self.better == 'higher' else 'below'} {self.ratio:g}"


@dataclass
class Comparison:
    """What one benchmark found: a sequence of rounds per side, in the order in which they alternated."""

    name: str
    goal: Goal
    ours: list[Numbers] = field(default_factory=list)
    bare: list[Numbers] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, round by round."""
        number = self.goal.number
        return [ours[number] / bare[number] for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def is_met(self) -> bool:
        """Whether the median ratio reaches the goal."""
        return self.goal.is_met_by(statistics.median(self.ratios))

    def as_json(self) -> dict[str, Any]:
        """All that was measured."""
        return {
            "name": self.name,
            "goal": {"number": self.goal.number, "ratio": str(self.goal)},
            "met": self.is_met,
            "ratios": spread(self.ratios),
            "ours": self.ours,
            "bare": self.bare,
        }


async def alternate(name: str, goal: Goal, ours: Side, bare: Side, rounds: int) -> Comparison:
    """Let the sides take turns (A B A B), after one round of each that is not counted."""
    found = Comparison(name, goal)
    await bare()
    await ours()
    for _ in range(rounds):
        found.bare.append(await bare())
        found.ours.append(await ours())
    return found


def medians(rounds: Sequence[Numbers]) -> dict[str, float]:
    """Each number's median over the rounds of a side."""
    return {number: statistics.median(one[number] for one in rounds) for number in rounds[0]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The least, the middle and the largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all (0 to 1) do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


class Meter:
    """The CPU that processes use between two looks, with all the children they have or had."""

    def __init__(self, **pids: int | None) -> None:
        self._pids = {name: pid for name, pid in pids.items() if pid is not None}
        self._began = time.perf_counter()
        self._before = self._read()

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start."""
        return time.perf_counter() - self._began

    def cpu(self, per: float = 1.0) -> dict[str, float]:
        """CPU seconds since the start, by part, divided by `per`."""
        now = self._read()
        return {f"cpu_{name}": (now[name] - self._before[name]) / per for name in now}

    def _read(self) -> dict[str, float]:
        return {name: _cpu_seconds(psutil.Process(pid)) for name, pid in self._pids.items()}


def _cpu_seconds(process: psutil.Process) -> float:
    ended = process.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile, and counts as its parent's
            times = one.cpu_times()
            total += times.user + times.system
    return total
