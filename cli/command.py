"""What every client command has in common: where the API is, the form of the answer, and what an exit code means."""

import inspect
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeAlias
from urllib.parse import quote

import typer

from cli.errors import EXIT_CODES, told

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.client import Api

P = ParamSpec("P")
Limit = Annotated[int, typer.Option(help="Show at most so many rows.", min=1, max=100_000)]
All = Annotated[bool, typer.Option("--all", help="Show all rows, however many.")]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _begun(given: str | None) -> str | None:
    """Take a UTC day for the moment that it begins at."""
    return f"{given}T00:00:00Z" if given and _DAY.fullmatch(given) else given


def _moment(name: str, text: str) -> Any:
    """An option that is a moment, or a day."""
    return typer.Option(name, help=text, metavar="DAY|MOMENT", show_default=False, callback=_begun)


From = Annotated[
    str | None, _moment("--from", "From this UTC day or moment on, as in 2025-01-10 or 2025-01-10T00:00:00Z.")
]
To = Annotated[str | None, _moment("--to", "Before this UTC day or moment.")]


def in_path(metavar: str, text: str) -> Any:
    """An argument that names a thing in an address, of which it is one part, whatever it holds."""
    return typer.Argument(metavar=metavar, help=text, show_default=False, callback=lambda name: quote(name, safe=""))


MissionId = Annotated[str, in_path("MISSION", "As in mission_20250110_001.")]
Reason = Annotated[str, typer.Option(help="Why; it enters the history.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_URL = Annotated[
    str | None,
    typer.Option(
        "--url", help="Where the API is. [default: MC_API_URL, else http://127.0.0.1:8000]", show_default=False
    ),
]
_KEY = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="Others on this machine can read a command line: prefer MC_API_KEY. [default: the key file]",
        show_default=False,
    ),
]
_JSON = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def option(metavar: str, text: str) -> Any:
    """An option without a default of its own: its help says what holds where it is not given."""
    return typer.Option(help=text, metavar=metavar, show_default=False)


def number(text: str, *, metavar: str | None = None, least: float | None = None) -> Any:
    """An option that is a number which a request can hold: neither infinite nor nan, which Python reads as well."""
    return typer.Option(help=text, metavar=metavar, min=least, callback=_finite)


def _finite(given: float | None) -> float | None:
    if given is None or math.isfinite(given):
        return given
    raise typer.BadParameter(f"{given} is no finite number")


@dataclass(frozen=True)
class Client:
    """What a client command works with: the API, and the one place where it answers."""

    api: "Api"
    as_json: bool

    def answer(self, data: Any, shown: "RenderableType | Callable[[], RenderableType]") -> None:
        """Print the answer: the API's data for scripts, `shown` for people; and say where it is not all there is."""
        from cli.text import console

        if self.as_json:
            typer.echo(json.dumps(data, indent=2))
        else:
            console().print(shown() if callable(shown) else shown)
        self.tell_of_more(data)

    @staticmethod
    def tell_of_more(rows: Any) -> None:
        """Say that a list has more than it was asked for, apart from the answer, so that nobody takes it for all."""
        if getattr(rows, "has_more", False):
            typer.echo(f"there are more than the {len(rows)} shown: --all shows all, --limit NUMBER so many", err=True)

    def confirm(self, question: str, yes: bool) -> None:
        """End the command unless its user agrees; who says --yes or --json is not asked."""
        if not (yes or self.as_json):
            typer.confirm(question, abort=True, err=True)


_Command: TypeAlias = Callable[Concatenate[Client, P], int | None]


def client_command(app: typer.Typer, name: str) -> Callable[[_Command[P]], _Command[P]]:
    """Add a command that talks to the API: its function takes a `Client` first, and may return an exit code."""

    def register(
        function: Callable[Concatenate[Client, P], int | None],
    ) -> Callable[Concatenate[Client, P], int | None]:
        app.command(name)(_with_connection(function))
        return function

    return register


def _with_connection(function: Callable[..., int | None]) -> Callable[..., None]:
    """Put the connection's options in place of the function's first parameter, so that typer offers them."""

    def run(*, api_url: str | None, api_key: str | None, as_json: bool, **given: Any) -> None:
        raise typer.Exit(_call(lambda client: function(client, **given), api_url, api_key, as_json) or 0)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (("api_url", None, _URL), ("api_key", None, _KEY), ("as_json", False, _JSON))
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters = [*keyword, *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature looks for
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = f"{inspect.getdoc(function)}\n\n{EXIT_CODES}"
    return run


def _call(function: Callable[[Client], int | None], url: str | None, key: str | None, as_json: bool) -> int | None:
    with told(as_json=as_json):
        from cli.client import connect
        from cli.settings import load

        with connect(load(), url, key) as api:
            return function(Client(api, as_json))
