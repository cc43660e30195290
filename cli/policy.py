"""`mission-control policy …`: what acts may do, who is asked first, and what another policy would have changed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import All, Client, Limit, Yes, client_command, number
from cli.errors import Refused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from models.domain.policy import Fact

app = typer.Typer(no_args_is_help=True, help="See, try and change the policy: what may be done, and who is asked.")

File = Annotated[Path, typer.Argument(help="A policy in YAML.", exists=True, dir_okay=False, show_default=False)]
Tried = Annotated[
    str, typer.Argument(metavar="FILE|VERSION", help="A policy in YAML, or a version's number.", show_default=False)
]
Version = Annotated[int, typer.Argument(help="As `policy versions` shows it.", min=1, show_default=False)]


@client_command(app, "show")
def show(
    client: Client,
    version: Annotated[int | None, typer.Option(help="Another than the one in force.", min=1)] = None,
) -> None:
    """Show the policy in force, as it is written: good as a file.

    \b
    Example:
      mission-control policy show > mine.yaml
    """
    from cli.text import line, safe

    found = client.api.get(f"/policy/versions/{version}" if version else "/policy")
    if client.as_json:
        client.answer(found, "")
    else:  # not by the console, which would break its lines at the terminal's width
        typer.echo(f"# version {found['version']}, by {line(found['created_by'])}", err=True)
        typer.echo(safe(found["source"]), nl=False)


@client_command(app, "versions")
def versions(client: Client, limit: Limit = 50, everything: All = False) -> None:
    """List the versions of the policy, the newest first."""
    from cli.text import moment, table

    active = client.api.get("/policy")["version"]
    rows = client.api.rows("/policy/versions", None if everything else limit)
    cells = [
        (
            str(row["version"]),
            "in force" if row["version"] == active else "",
            moment(row["created_at"]),
            row["created_by"],
            row["note"],
        )
        for row in rows
    ]
    client.answer(rows, lambda: table(("version", "", "made", "by", "note"), cells))


@client_command(app, "try")
def try_policy(
    client: Client,
    policy: Tried,
    limit: Annotated[int, typer.Option(help="Judge so many of the newest acts.", min=1, max=10_000)] = 1_000,
) -> None:
    """Judge past acts by a policy that is in force nowhere, and show what it would have changed.

    \b
    Examples:
      mission-control policy try stricter.yaml
      mission-control policy try 2
    """
    with _named(policy):
        tried = client.api.post("/policy/try", _tried(policy) | {"limit": limit})
    client.answer(tried, lambda: told(tried))


@client_command(app, "create")
def create(
    client: Client,
    file: File,
    note: Annotated[str, typer.Option(help="What it changes, and why.", show_default=False)] = "",
) -> None:
    """Keep a file as a new version. It changes nothing until it is activated."""
    with _named(file):
        made = client.api.post("/policy/versions", {"source": _text(file), "note": note})
    client.answer(made, f"version {made['version']}; put it in force with: policy activate {made['version']}")


@client_command(app, "activate")
def activate(client: Client, version: Version, yes: Yes = False) -> None:
    """Judge by a version from now on; an older one, too. It says first what that one has more or fewer."""
    if not (yes or client.as_json):
        before, after = (client.api.get(path) for path in ("/policy", f"/policy/versions/{version}"))
        change = compared(before["version"], before["size"], after["size"])
        client.confirm(f"Version {version} has {change}. Judge everything by it from now on?", yes)
    chosen = client.api.post(f"/policy/versions/{version}/activate")
    change = compared(chosen["before"], chosen["before_size"], chosen["size"])
    client.answer(chosen, f"version {chosen['version']} is in force; it has {change}")


@client_command(app, "explain")
def explain(
    client: Client,
    action: Annotated[str, typer.Option(help="What would be done, as `mission.merge`.", show_default=False)],
    who: Annotated[str, typer.Option("--as", help="Who: human:operator, agent:intern, service.", metavar="WHO")],
    env: Annotated[str | None, typer.Option(help="Where. [default: what the installation is]")] = None,
    protected: Annotated[bool, typer.Option("--protected", help="On a protected branch.")] = False,
    path: Annotated[list[str] | None, typer.Option(help="A path it touches; may be repeated.", metavar="PATH")] = None,
    fact: Annotated[
        list[str] | None,
        typer.Option(help="What else holds, as NAME or NAME=VALUE; repeat it for more, or for a list's items."),
    ] = None,
    usd: Annotated[float | None, number("What it would cost.", least=0)] = None,
    usd_left: Annotated[float | None, number("What its caps leave.", least=0)] = None,
) -> None:
    """Say what the policy in force makes of an act, and why.

    \b
    Example:
      mission-control policy explain --action shell --as agent:intern
      mission-control policy explain --action mission.merge --as service --env prod --protected
    """
    body = {
        "action": action,
        "as": _who(who),
        "env": env,
        "protected": protected,
        "paths": path or [],
        "facts": _facts(fact or []),
        "usd": usd,
        "usd_left": usd_left,
    }
    verdict = client.api.post("/policy/explain", body)
    client.answer(verdict, lambda: explained(verdict))


@client_command(app, "verdicts")
def verdicts(
    client: Client,
    action: Annotated[str | None, typer.Option(help="As `mission.merge`.", show_default=False)] = None,
    outcome: Annotated[str | None, typer.Option(help="allow, ask or deny.", show_default=False)] = None,
    risk: Annotated[str | None, typer.Option(help="GREEN, YELLOW or RED.", show_default=False)] = None,
    mission: Annotated[str | None, typer.Option(help="Only of this mission.", show_default=False)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List what was judged, the newest first, and why; `--json` shows all that the policy was told.

    \b
    Example:
      mission-control policy verdicts --outcome deny
    """
    from cli.text import moment, table, word

    filters = {"action": action, "outcome": outcome, "risk": risk, "mission_id": mission}
    rows = client.api.rows("/policy/verdicts", None if everything else limit, **filters)
    cells = [
        (
            moment(r["at"]),
            r["input"]["principal"]["name"],
            r["action"],
            r["mission_id"] or r["input"]["context"]["facts"].get("run_id"),
            r["risk"],
            word(r["outcome"]),
            "; ".join(r["reasons"]),
        )
        for r in rows
    ]
    columns = ("when", "who", "action", "mission or run", "risk", "outcome", "because")
    client.answer(rows, lambda: table(columns, cells))


def _tried(given: str) -> dict[str, Any]:
    """Read what is to be tried: a kept version by its number, unless a file is called so, or a file."""
    if re.fullmatch("[0-9]{1,9}", given) and not Path(given).exists():
        return {"version": int(given)}
    return {"source": _text(Path(given))}


@contextmanager
def _named(file: Path | str) -> Iterator[None]:
    """Name the file that was given, where the API, which has but its text, calls it by a name of its own."""
    from models.domain.policy import FILE

    try:
        yield
    except Refused as refusal:
        if not refusal.message.startswith(f"{FILE}: "):
            raise
        told = f"{file}{refusal.message.removeprefix(FILE)}"
        raise Refused(refusal.code, told, refusal.request_id) from None


def _text(file: Path) -> str:
    from models.domain.plain_yaml import MAX_BYTES

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read as UTF-8 text: {error}", param_hint="FILE") from None
    if (length := len(text.encode())) > MAX_BYTES:
        told = f"{file} is too long for a policy: it has {length:,} bytes, and may have {MAX_BYTES:,}"
        raise typer.BadParameter(told, param_hint="FILE")
    return text


def _who(given: str) -> dict[str, str]:
    """Read `kind`, or `kind:role` of a human, or `kind:level` of an agent."""
    kind, _, rank = given.partition(":")
    return {"kind": kind} | ({"level" if kind == "agent" else "role": rank} if rank else {})


def _facts(given: list[str]) -> dict[str, "Fact"]:
    from models.domain.errors import InvalidInput
    from models.domain.policy_names import read_facts

    try:
        return read_facts(given)
    except InvalidInput as error:
        raise typer.BadParameter(error.message, param_hint="--fact") from None


def explained(verdict: dict[str, Any]) -> "RenderableType":
    """A verdict, line by line."""
    from cli.text import facts, word

    ask = verdict["ask"]
    people = f"{ask['people']} of role {ask['role']} or higher" if ask else None
    eyes = {"required": ", never the requester", "unless_alone": ", the requester only where nobody else could"}
    return facts(
        [
            ("outcome", word(verdict["outcome"])),
            ("risk", verdict["risk"]),
            ("because", verdict["reasons"]),
            ("rules", ", ".join(verdict["rules"])),
            ("who approves", people + eyes[ask["four_eyes"]] if ask and people else None),
            ("policy version", verdict["policy_version"]),
        ]
    )


_PARTS = {
    "actions": "actions with a class",
    "secret_paths": "secret paths",
    "rules": "rules",
    "resolve": "kinds of decisions under `resolve`",
}


def compared(version: int, before: dict[str, int], after: dict[str, int]) -> str:
    """Say what a policy has more or fewer than the version in force: what was dropped holds nothing any more."""
    steps = [
        f"{after[part]} {what} ({abs(by)} {'fewer' if by < 0 else 'more'})"
        for part, what in _PARTS.items()
        if (by := after[part] - before[part])
    ]
    return f"{', '.join(steps)} than version {version}" if steps else f"as much of each part as version {version}"


def told(tried: dict[str, Any]) -> "RenderableType":
    """What would have changed: the counts, then examples."""
    from rich.console import Group
    from rich.text import Text

    from cli.text import table

    head = Text(f"{tried['changed']} of {tried['judged']} acts would have been judged otherwise")
    return Group(head, *_changes(table, tried)) if tried["changed"] else head


def _changes(table: Any, tried: dict[str, Any]) -> Iterator["RenderableType"]:
    def step(before: str, after: str) -> str:
        return before if before == after else f"{before} → {after}"

    counts = [
        (step(*each["risk"]), step(*each["outcome"]), step(*map(_asked, each["ask"])), str(each["count"]))
        for each in tried["changes"]
    ]
    yield table(("risk", "outcome", "asked", "acts"), counts)
    examples = [
        (
            each["mission_id"] or each["verdict_id"],
            each["action"],
            step(each["before"]["risk"], each["after"]["risk"]),
            step(each["before"]["outcome"], each["after"]["outcome"]),
            step(*map(_asked, each["ask"])),
            "; ".join(each["after"]["reasons"]),
        )
        for each in tried["examples"]
    ]
    yield table(("for example", "action", "risk", "outcome", "asked", "because"), examples)


def _asked(ask: dict[str, Any] | None) -> str:
    """Who must approve, in few words."""
    if ask is None:
        return "nobody"
    alone = ", not the requester" if ask["four_eyes"] == "required" else ""
    return f"{ask['people']} {ask['role']}{alone}"
