"""What every scene of the demo has: the product that runs, the terminal, and an audience that can pull the plug."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cli.demo import world
from cli.text import forget_typed, safe
from cli.watch import Json, StageLines
from models.settings import Settings

NAME_WIDTH = 7


@dataclass(frozen=True)
class Wishes:
    """How the demo is to go."""

    yes: bool
    kill_worker: bool
    leave: bool


@dataclass(frozen=True)
class House:
    """What a scene is played in; `kill` ends the worker as a crash would."""

    settings: Settings
    out: Console
    wishes: Wishes
    kill: Callable[[], None]

    def repository(self) -> Path:
        """Make the repository that missions mend here, and tell of it."""
        place = world.make_repository(self.settings.data_dir / "repositories")
        self.tell(f"\nthe repository {place}, at {world.git(place, 'log', '-1', '--format=%h %s')}")
        return place

    def agrees(self, question: str) -> bool:
        """Ask in the terminal; --yes agrees to everything."""
        if self.wishes.yes:
            return True
        forget_typed()
        return typer.confirm(question)

    def tell(self, text: str, style: str = "") -> None:
        """Print what happens."""
        self.out.print(Text(safe(text), style=style))

    def does(self, who: str, what: str) -> None:
        """Print who acts, and how."""
        self.out.print(Text(f"{safe(who):<{NAME_WIDTH}}", style="bold").append(safe(what), style="not bold"))

    def answers(self, said: str, *, refused: bool = False) -> None:
        """Print what the product says to that."""
        style = "red" if refused else "green"
        self.out.print(Padding(Text(safe(said), style=style), (0, 0, 0, NAME_WIDTH), expand=False))


class Audience(StageLines):
    """Shows a mission's stages, answers its question once, and kills the worker where that was wished for."""

    def __init__(self, house: House, answer: Callable[[str], None]) -> None:
        super().__init__(house.out)
        self._house, self._answer = house, answer
        self._killed, self._answered = not house.wishes.kill_worker, False

    def now(self, mission: Json, stage: Json | None) -> None:
        """Act where it is time to, then show what runs."""
        if stage and stage["stage"] == "run_tests" and not self._killed:
            self._killed = True
            self.quiet()
            self._house.kill()
        if stage and stage["status"] == "waiting_decision" and not self._answered:
            self._answered = True
            self.quiet()
            self._answer(mission["mission_id"])
        super().now(mission, stage)

    def asked(self) -> None:
        """Nothing: the question itself is shown."""
