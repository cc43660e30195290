"""Settings for a command, or a usage error that names the variable to mend."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from models.settings import Settings


def load() -> "Settings":
    """Read the environment; ends the command with exit code 2 when a variable cannot be right."""
    from pydantic import ValidationError

    from models.domain.wording import plain
    from models.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors():
            typer.secho(f"{_variable(problem['loc'])}: {plain(problem['msg'])}", fg="red", err=True)
        raise typer.Exit(2) from None


def _variable(location: tuple[int | str, ...]) -> str:
    """Spell a field as the variable that sets it."""
    name = str(location[0])
    return name if name.isupper() else f"MC_{name.upper()}"
