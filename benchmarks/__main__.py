"""`make bench`: measures us against the bare stack, prints a table and writes JSON.

`python -m benchmarks [NAME …] [--quick]`. Both sides of a comparison take turns on the same servers.
"""

import argparse
import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks import checks, fanout, ingest, ledger, listing, pipeline, policy, queue, sealing, waiting
from benchmarks.measure import Comparison, medians

BENCHMARKS = {
    "pipeline": pipeline.run,
    "ingest": ingest.run,
    "fanout": fanout.run,
    "listing": listing.run,
    "policy": policy.run,
    "checks": checks.run,
    "ledger": ledger.run,
    "queue": queue.run,
}
TOLD = {"waiting": waiting.run, "sealing": sealing.run}
"""These have no other side to compare with."""
TOLD_GOALS = {"sealing": sealing.GOALS}
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    """Run what was asked for, or all."""
    known = [*BENCHMARKS, *TOLD]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure us against the bare stack.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"there is no benchmark {min(unknown)!r}; known: {', '.join(known)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console()
    found: list[Comparison] = []
    told: dict[str, dict[str, float]] = {}
    for name in options.names or known:
        with console.status(f"measuring {name}"):
            if name in TOLD:
                told[name] = asyncio.run(TOLD[name](options.quick))
            else:
                found += asyncio.run(BENCHMARKS[name](options.quick))
    if found:
        console.print(_table(found))
    for name, numbers in told.items():
        console.print(_told_table(name, numbers))
    console.print(f"written to {_write(found, told, quick=options.quick)}")


def _table(found: list[Comparison]) -> Table:
    table = Table(title="Ours over bare: medians of alternating rounds")
    for heading in ("benchmark", "number", "ours", "bare", "ratio min / median / max", "goal"):
        table.add_column(heading)
    for one in found:
        ours, bare, ratios = medians(one.ours), medians(one.bare), one.as_json()["ratios"]
        for number in ours:
            judged = number == one.goal.number
            ratio = f"{ratios['min']:.2f} / {ratios['median']:.2f} / {ratios['max']:.2f}" if judged else ""
            goal = _goal(one) if judged else ""
            table.add_row(one.name if judged else "", number, f"{ours[number]:.4g}", f"{bare[number]:.4g}", ratio, goal)
    return table


def _goal(one: Comparison) -> str:
    if one.goal.ratio is None:
        return str(one.goal)
    return f"{one.goal}: {'met' if one.is_met else 'not met'}"


def _told_table(name: str, numbers: dict[str, float]) -> Table:
    table = Table("number", "value", "goal", title=f"{name} (shares are of one CPU)")
    goals = {goal.number: goal for goal in TOLD_GOALS.get(name, ())}
    for number, value in numbers.items():
        goal = goals.get(number)
        verdict = f"{goal}: {'met' if goal.is_met_by(value) else 'not met'}" if goal else ""
        table.add_row(number, f"{value:.4g}", verdict)
    return table


def _judged(name: str, numbers: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"number": goal.number, "goal": str(goal), "met": goal.is_met_by(numbers[goal.number])}
        for goal in TOLD_GOALS.get(name, ())
    ]


def _write(found: list[Comparison], told: dict[str, dict[str, float]], *, quick: bool) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    comparisons = [one.as_json() for one in found]
    report: dict[str, Any] = {"cpus": os.cpu_count(), "quick": quick, "comparisons": comparisons, **told}
    report["goals"] = {name: _judged(name, numbers) for name, numbers in told.items()}
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


if __name__ == "__main__":
    main()
