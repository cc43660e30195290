"""`mission-control budget …` and `mission-control cost`: what may be spent, and what was."""

from decimal import Decimal
from typing import Annotated, Any

import typer

from cli.command import All, Client, Limit, client_command

app = typer.Typer(no_args_is_help=True, help="See and set what may be spent.")

NONE = "none"


@client_command(app, "list")
def list_budgets(client: Client, limit: Limit = 50, everything: All = False) -> None:
    """List the caps that hold: those that admins set, and the defaults."""
    from cli.text import table

    rows = client.api.rows("/budgets", None if everything else limit)
    columns = ("limit", "of", "name", "USD", "tokens", "set by")
    cells = [
        (r["scope"], r["owner"], r["name"], _cap(r["cap_usd"]), _cap(r["cap_tokens"]), r["set_by"] or "default")
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "spending")
def spending(
    client: Client,
    scope: Annotated[
        str | None, typer.Option(help="run, ticket, agent_day or workspace_month.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Of one run, ticket or agent.", show_default=False)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List what each limit has spent and promised, of what it may."""
    from cli.text import table

    rows = client.api.rows("/budgets/spending", None if everything else limit, scope=scope, subject=subject)
    columns = ("limit", "of", "period", "USD spent", "promised", "USD cap", "tokens", "token cap", "")
    cells = [
        (
            r["scope"],
            r["subject"],
            r["period"],
            r["settled_usd"],
            r["reserved_usd"],
            _cap(r["cap_usd"]),
            r["settled_tokens"],
            _cap(r["cap_tokens"]),
            "crossed" if r["crossed"] else "",
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "set")
def set_budget(
    client: Client,
    scope: Annotated[str, typer.Argument(help="run, ticket, agent_day or workspace_month.", show_default=False)],
    owner: Annotated[str, typer.Argument(help="level, category, agent, ticket, run or workspace.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Whose; a workspace has none.", show_default=False)] = "",
    usd: Annotated[str | None, typer.Option(help="The most in dollars, or `none`.", show_default="as it is")] = None,
    tokens: Annotated[str | None, typer.Option(help="The most in tokens, or `none`.", show_default="as it is")] = None,
) -> None:
    """Set a cap, for admins; what is not said of it stays. A higher one lets what it blocked go on at once.

    \b
    Examples:
      mission-control budget set run level intern --usd 0.50
      mission-control budget set workspace_month workspace --tokens 50000000
    """
    if usd is None and tokens is None:
        raise typer.BadParameter("say how much: --usd, --tokens, or both; `none` is no limit", param_hint="--usd")
    said: dict[str, Any] = {"scope": scope, "owner": owner, "name": name}
    said |= {} if usd is None else {"cap_usd": None if usd == NONE else usd}
    said |= {} if tokens is None else {"cap_tokens": _tokens(tokens)}
    made = client.api.patch("/budgets", said)
    owner = f"{made['owner']} {made['name']}".rstrip()
    client.answer(made, f"{made['scope']} of {owner}: {_caps(made)}")


def cost(
    client: Client,
    by: Annotated[str, typer.Option(help="agent, ticket, run, mission, model, day or workspace.")] = "day",
    since: Annotated[str | None, typer.Option(help="From this UTC day on.", show_default=False)] = None,
    until: Annotated[str | None, typer.Option(help="Before this UTC day.", show_default=False)] = None,
) -> None:
    """Sum up what was paid."""
    from cli.text import table

    found = client.api.get("/costs", group_by=by, since=since, until=until)
    others = found["groups"] - len(found["items"])
    rows = [*found["items"], *_rest(found, others), {**found["total"], "key": "total"}]
    cells = [(r["key"] or "none", r["usd"], r["tokens_in"], r["tokens_out"], r["calls"]) for r in rows]
    client.answer(found, lambda: table((by, "USD", "tokens in", "tokens out", "calls"), cells))
    if others:
        shown = f"the {len(found['items'])} dearest are shown, and {others} others as one"
        typer.echo(f"{shown}: --since and --until narrow them", err=True)


def _rest(found: dict[str, Any], others: int) -> list[dict[str, Any]]:
    """Sum up what is not shown, so that all that is adds up to the total."""
    from models.domain.money import written

    if not others:
        return []
    parts = ("usd", "tokens_in", "tokens_out", "calls")
    shown = {part: sum(Decimal(row[part]) for row in found["items"]) for part in parts}
    rest = {part: written(Decimal(found["total"][part]) - shown[part]) for part in parts}
    return [{"key": f"{others} others", **rest}]


def add_cost_to(main: typer.Typer) -> None:
    """Offer `mission-control cost`."""
    client_command(main, "cost")(cost)


def _tokens(given: str) -> int | None:
    if given == NONE:
        return None
    if not given.isascii() or not given.isdigit():
        raise typer.BadParameter("must be a number of tokens, or `none`", param_hint="--tokens")
    return int(given)


def _cap(value: Any) -> str:
    return NONE if value is None else str(value)


def _caps(limit: dict[str, Any]) -> str:
    return f"USD {_cap(limit['cap_usd'])}, tokens {_cap(limit['cap_tokens'])}"
