"""Following a mission to its end: what is done, how long it took, the verdict, and why."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Protocol, get_args

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from cli.client import Api
from cli.errors import Unreachable
from cli.text import console, duration, line, span, table, word
from models.contracts.controls import Effect

OUTCOME_CODES = {
    "merged": 0,
    "rolled_back": 10,
    "denied": 11,
    "expired": 12,
    "failed": 13,
    "canceled": 14,
    "terminated": 15,
}
RECONNECT_SECONDS = (0.5, 1, 2, 4, 8)
"""Waits between attempts; the last repeats. Nobody watches a mission to see the watching give up."""
ENDED = frozenset({"passed", "failed", "skipped"})
PROVES = ("branch_and_patch", "run_tests", "security_scan", "stress_tests")
"""The stages that a candidate must pass; the first that does is the mission's."""
AFTER_PROOF = frozenset({"publish_diagnostics", "collect_metrics"})

Json = dict[str, Any]


class View(Protocol):
    """Shows how a mission goes."""

    def stage_ended(self, stage: Json) -> None:
        """A stage has its verdict."""
        ...

    def steered(self, event: Json) -> None:
        """Somebody paused, resumed or canceled the mission, or noted something."""
        ...

    def now(self, mission: Json, stage: Json | None) -> None:
        """This is what goes on; None between two stages."""
        ...

    def lost(self, message: str) -> None:
        """The connection is gone and will be tried again."""
        ...

    def quiet(self) -> None:
        """Others write now, or nothing more will come."""
        ...


def follow(api: Api, mission_id: str, *, as_json: bool = False) -> int:
    """Show a mission until it ends; the exit code that tells its outcome."""
    out = console()
    view = JsonLines() if as_json else StageLines(out)
    mission = watch(api, mission_id, view)
    if as_json:
        typer.echo(json.dumps(mission))
    else:
        out.print(ending(mission))
    return OUTCOME_CODES[mission["outcome"]]


def watch(api: Api, mission_id: str, view: View) -> Json:
    """Tell `view` what happens until the mission has ended; the mission as it is then."""
    shown: set[tuple[object, ...]] = set()
    mission: Json = {}
    try:
        for mission, stages in states(api, mission_id, view.lost):
            for key, tell in _news(view, mission, stages):
                if key not in shown:
                    shown.add(key)
                    tell()
            view.now(mission, next((s for s in stages if s["status"] not in ENDED), None))
    finally:
        view.quiet()
    return mission


def _news(view: View, mission: Json, stages: list[Json]) -> Iterator[tuple[tuple[object, ...], Callable[[], None]]]:
    """What there is to tell, in the order of time: the stages that ended, and what people said to the mission."""
    ended = [(s["ended_at"], _place(s), partial(view.stage_ended, s)) for s in stages if s["status"] in ENDED]
    steered = [(e["at"], (e["at"], e["actor"], e["action"]), partial(view.steered, e)) for e in commands(mission)]
    for _, key, tell in sorted([*ended, *steered], key=lambda news: datetime.fromisoformat(news[0])):
        yield key, tell


def _place(stage: Json) -> tuple[object, ...]:
    return stage["round"], stage["candidate"], stage["stage"]


def commands(mission: Json) -> list[Json]:
    """What people said to a mission, as its history has it."""
    return [event for event in mission["remediation_history"] if event["action"] in _COMMANDS]


def said(event: Json) -> str:
    """Who said what, and why: `paused by olga (lunch)`."""
    effect, _, rest = event["result"].partition(": ")
    reason = rest if effect in get_args(Effect) else event["result"]
    return line(f"{_COMMANDS[event['action']]} by {event['actor']}" + (f" ({reason})" if reason else ""))


_COMMANDS = {"pause": "paused", "resume": "resumed", "note": "noted", "cancel": "canceled"}


def states(api: Api, mission_id: str, lost: Callable[[str], None]) -> Iterator[tuple[Json, list[Json]]]:
    """The mission and its stages now, and after each event about it, until it has ended.

    Events only say that it is time to look again, so nothing can be missed between two connections.
    """
    last_id, failures = "", 0
    while True:
        try:
            with api.events(last_id, subject=mission_id) as events:
                for event in chain((None,), events):
                    last_id = event.id if event else last_id
                    mission = api.get(f"/missions/{mission_id}")
                    yield mission, api.rows(f"/missions/{mission_id}/stages", None)
                    failures = 0
                    if mission["outcome"]:
                        return
        except Unreachable as error:
            lost(str(error))
        time.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
        failures += 1


class JsonLines:
    """For scripts: each stage's record when it has ended, one a line."""

    def stage_ended(self, stage: Json) -> None:
        """Print the record."""
        typer.echo(json.dumps(stage))

    def steered(self, event: Json) -> None:
        """Nothing: the mission's own history, in the last line, tells it."""

    def now(self, mission: Json, stage: Json | None) -> None:
        """Nothing: a script waits for what has ended."""

    def lost(self, message: str) -> None:
        """Say so where it is not taken for data."""
        typer.echo(message, err=True)

    def quiet(self) -> None:
        """Nothing moves here."""


class StageLines:
    """For people: a line for each stage that ended, and on a terminal what runs now and since when."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._place: tuple[int, int] | None = None
        self._status: Status | None = None
        self._waiting = self._blocked = ""

    def stage_ended(self, stage: Json) -> None:
        """Print its line, after a heading where another candidate or round begins."""
        place = (stage["round"], stage["candidate"])
        if place != self._place:
            if self._place is not None:
                self._out.print(_heading(place, self._place), style="bold")
            self._place = place
        self._out.print(stage_row(stage))

    def steered(self, event: Json) -> None:
        """Print who said what."""
        self._out.print(f"    {said(event)}", style="yellow")

    def now(self, mission: Json, stage: Json | None) -> None:
        """Show what runs, or that a human is waited for."""
        self.quiet()
        if mission["outcome"]:
            return
        if stage and stage["status"] == "waiting_decision" and self._waiting != stage["stage"]:
            self._waiting = stage["stage"]
            self.asked()
        if self._blocked != (blocked := mission.get("blocked") or ""):
            self._blocked = blocked
            self._out.print(line(f"    blocked: {blocked}" if blocked else "    no longer blocked"), style="yellow")
        if self._out.is_terminal:
            self._status = self._out.status(_Since(_doing(mission, stage)))
            self._status.start()

    def asked(self) -> None:
        """Say that a human is waited for."""
        self._out.print("    waits for a human: `mission-control decision list` shows the question", style="yellow")

    def lost(self, message: str) -> None:
        """Say it."""
        self.quiet()
        self._out.print(line(message), style="yellow")

    def quiet(self) -> None:
        """Take the moving line away, so that others may write."""
        if self._status:
            self._status.stop()
            self._status = None


class _Since:
    """What goes on, with a clock."""

    def __init__(self, what: str) -> None:
        self._what, self._since = what, time.monotonic()

    def __rich__(self) -> Text:
        return Text(f"{self._what}  {duration(time.monotonic() - self._since)}")


def _doing(mission: Json, stage: Json | None) -> str:
    if mission.get("paused"):
        return line(f"blocked: {mission['blocked']}") if mission.get("blocked") else "paused"
    if stage is None:
        if mission["stage"] == "governance":
            return "waits for the merge slot"
        return "observing" if mission["status"] == "observing" else "going on"
    return f"{line(stage['number'])} {line(stage['stage'])}"


def _heading(place: tuple[int, int], before: tuple[int, int]) -> str:
    if place[0] != before[0]:
        return "the target branch moved: the stages repeat on its new head"
    return f"candidate {place[1]}"


def stage_row(stage: Json) -> Table:
    """One stage on one line: number, name, verdict, time, reason."""
    row = Table.grid(padding=(0, 2))
    for width in (2, 19, 8, 12):
        row.add_column(width=width, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(
        Text(line(stage["number"]), justify="right"),
        Text(line(stage["stage"])),
        word(stage["status"]),
        Text(span(stage), justify="right"),
        Text(_why(stage)),
    )
    return row


def _why(stage: Json) -> str:
    """The reason, and that it was begun again: a worker was killed over it."""
    again = f"attempt {stage['attempt']}" if stage["attempt"] > 1 else ""
    return "; ".join(text for text in (line(stage["reason"]), again) if text)


def stage_table(stages: list[Json]) -> Table:
    """All stages of a mission."""
    several = len({(s["round"], s["candidate"]) for s in stages}) > 1
    rows = [
        (
            s["number"],
            s["stage"] + (f" (round {s['round']}, candidate {s['candidate']})" if several else ""),
            word(s["status"]),
            span(s),
            _why(s),
        )
        for s in stages
    ]
    return table(("", "stage", "status", "took", "why"), rows)


def candidate_table(candidates: list[Json], stages: list[Json]) -> Table:
    """All candidates of a mission: what became of each is kept at the mission's end, and until then seen by stages."""
    rows = []
    for candidate in candidates:
        outcome, why = candidate["outcome"], candidate["reason"]
        if not outcome:
            outcome, why = _so_far([s for s in stages if s["candidate"] == candidate["number"]])
        change = candidate["ref"] or candidate["digest"]
        rows.append((candidate["number"], word(outcome), candidate["author"], change, why))
    return table(("candidate", "outcome", "author", "change", "why"), rows)


def _so_far(stages: list[Json]) -> tuple[str, str]:
    """How a candidate fares, by the stages of its latest round."""
    latest = max((stage["round"] for stage in stages), default=0)
    own = {stage["stage"]: stage for stage in stages if stage["round"] == latest}
    for name in PROVES:
        if name in own and own[name]["status"] == "failed":
            return "failed", f"{name}: {own[name]['reason']}"
    if AFTER_PROOF & own.keys():
        return "passed", ""
    return ("being tried", "") if own.keys() & set(PROVES) else ("not tried", "")


def ending(mission: Json) -> Text:
    """The last line: the outcome, and why or what it left."""
    said = Text("mission ").append(line(mission["mission_id"])).append(": ").append(word(mission["outcome"]))
    sha = mission.get("revert_sha") or mission.get("merge_sha")
    rest = [line(text) for text in (mission.get("reason"), f"commit {sha}" if sha else None) if text]
    return said.append(f"  {'; '.join(rest)}") if rest else said
