"""The demo's mission: filed, watched, approved in the terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from cli.client import Api
from cli.decisions import question
from cli.demo import world
from cli.text import forget_typed
from cli.watch import StageLines, watch

Json = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """How the demo is to go."""

    yes: bool
    kill_worker: bool
    leave: bool


def play(api: Api, out: Console, repository: str, wishes: Wishes, kill: Callable[[], None]) -> Json:
    """Register the repository, file the mission, follow it to its end; the mission as it is then."""
    registered = api.post("/repositories", {"url": repository, "target_branch": world.BRANCH, "protected": True})
    filed = api.post("/missions", world.mission(registered["repository_id"]))
    mission_id = filed["mission_id"]
    out.print(Text(f"\nmission {mission_id}: {filed['symptoms'][0]['description']}", style="bold"))
    out.print(
        Text("two patches to try, the first one hasty; the branch is protected, so a human is asked\n", style="dim")
    )
    api.post(f"/missions/{mission_id}/execute", {"mission_type": "coding"})
    return watch(api, mission_id, _Audience(out, api, wishes, kill))


class _Audience(StageLines):
    """Shows the stages, answers the question, and pulls the plug where that was wished for."""

    def __init__(self, out: Console, api: Api, wishes: Wishes, kill: Callable[[], None]) -> None:
        super().__init__(out)
        self._out, self._api, self._wishes, self._kill = out, api, wishes, kill
        self._killed, self._answered = not wishes.kill_worker, False

    def now(self, mission: Json, stage: Json | None) -> None:
        """Act where it is time to, then show what runs."""
        if stage and stage["stage"] == "run_tests" and not self._killed:
            self._killed = True
            self.quiet()
            self._kill()
        if stage and stage["status"] == "waiting_decision" and not self._answered:
            self._answered = True
            self.quiet()
            self._answer(mission["mission_id"])
        super().now(mission, stage)

    def asked(self) -> None:
        """Nothing: the question itself is shown."""

    def _answer(self, mission_id: str) -> None:
        [decision] = self._api.rows("/decisions", 1, status="pending", mission_id=mission_id)
        self._out.print(Panel(question(self._api, decision), title="for your approval", title_align="left"))
        if not self._wishes.yes:
            forget_typed()
        approved = self._wishes.yes or typer.confirm("Approve this merge?")
        explanation = "seen in the demo: its tests, its scan and its diff" if approved else "denied in the demo"
        body = {"decision": "approve" if approved else "deny", "explanation": explanation}
        answered = self._api.post(f"/decisions/{decision['decision_id']}/resolve", body)
        by = " by --yes" if self._wishes.yes else ""
        self._out.print(Text(f"{'approved' if approved else 'denied'}{by}", style="green" if approved else "red"))
        if answered["single_operator"]:
            self._out.print(Text("nobody else has a key here: it is recorded that the requester answered", style="dim"))
        self._out.print()
