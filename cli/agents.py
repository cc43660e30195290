"""`mission-control agent …`: agents, and who asks to be one."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli.command import All, Client, Limit, Yes, client_command, number

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Register agents, let them in, hold them, and end them.")

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="Id or name, as in `agent list`.", show_default=False)]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.", show_default=False)]


@client_command(app, "register")
def register(
    client: Client,
    name: Annotated[str, typer.Argument(help="How it is called.", show_default=False)],
    endpoint: Annotated[str, typer.Option(help="Where it can be reached: an http or https URL.", show_default=False)],
    capability: Annotated[
        list[str] | None, typer.Option(help="What it can do; may be repeated.", show_default=False)
    ] = None,
) -> None:
    """Ask for an agent to be let in. Its token, which gets the key later, is shown once and kept nowhere.

    \b
    Example:
      mission-control agent register probe --endpoint https://agents.example.org/probe --capability coding
    """
    made = client.api.post("/agents", {"name": name, "endpoint": endpoint, "capabilities": capability or []})
    client.answer(made, lambda: described(made))


@client_command(app, "list")
def list_agents(
    client: Client,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that ask to be let in.")] = False,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List agents, also those that were rejected or ended."""
    from cli.text import table, word

    filters = {"registration": "pending" if pending else None}
    rows = client.api.rows("/agents", None if everything else limit, **filters)
    columns = ("agent", "name", "registration", "status", "level", "last heard of", "endpoint")
    cells = [
        (
            r["agent_id"],
            r["name"],
            word(r["registration"]),
            r["status"],
            r["level"],
            _heard(r),
            r["endpoint"],
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(client: Client, agent: AgentName) -> None:
    """Show an agent."""
    found = client.api.get(_place(agent))
    client.answer(found, lambda: described(found))


@client_command(app, "approve")
def approve(client: Client, agent: AgentName, reason: Why) -> None:
    """Let an agent in. Who registered it gets its key, once."""
    _answer(client, agent, "approve", {"explanation": reason})


@client_command(app, "reject")
def reject(client: Client, agent: AgentName, reason: Why) -> None:
    """Keep an agent out."""
    _answer(client, agent, "reject", {"explanation": reason})


@client_command(app, "pause")
def pause(client: Client, agent: AgentName) -> None:
    """Offer an agent no work until it is resumed."""
    _answer(client, agent, "pause", {})


@client_command(app, "resume")
def resume(client: Client, agent: AgentName) -> None:
    """Let an agent work again; out of quarantine it comes as paused."""
    _answer(client, agent, "resume", {})


@client_command(app, "drain")
def drain(client: Client, agent: AgentName) -> None:
    """Let an agent finish, and offer it no more."""
    _answer(client, agent, "drain", {})


@client_command(app, "quarantine")
def quarantine(client: Client, agent: AgentName) -> None:
    """Set an agent apart; only an admin lets it out."""
    _answer(client, agent, "quarantine", {})


@client_command(app, "stop")
def stop(client: Client, agent: AgentName) -> None:
    """End an agent's keys; once an admin has resumed it, `agent rotate-key` gives it a new one."""
    _answer(client, agent, "stop", {})


@client_command(app, "deactivate")
def deactivate(client: Client, agent: AgentName, yes: Yes = False) -> None:
    """End an agent and all its keys, for good; it stays listed."""
    client.confirm(f"End {agent} for good?", yes)
    ended = client.api.delete(_place(agent))
    client.answer(ended, lambda: described(ended))


@client_command(app, "level")
def level(
    client: Client,
    agent: AgentName,
    level: Annotated[str, typer.Argument(help="intern, specialist or lead.", show_default=False)],
) -> None:
    """Set an agent's level, the autonomy that an admin gives it: what it is asked about, and what its work may cost.

    An intern is asked about more and may spend less than a specialist, and that one than a lead. Its trust score, which
    moves with the outcomes of its missions, is another thing: `agent trust` shows it.

    \b
    Example:
      mission-control agent level probe specialist
    """
    changed = client.api.patch(_place(agent), {"level": level})
    client.answer(changed, lambda: described(changed))


@client_command(app, "tools")
def tools(
    client: Client,
    agent: AgentName,
    pattern: Annotated[list[str], typer.Argument(help="Of the tools, as in git_*.", show_default=False)],
) -> None:
    """Say which tools an agent may call at all; what is on no pattern is refused.

    \b
    Example:
      mission-control agent tools probe "git_*" shell
    """
    changed = client.api.patch(_place(agent), {"tools": pattern})
    client.answer(changed, lambda: described(changed))


@client_command(app, "trust")
def trust(client: Client, agent: AgentName, limit: Limit = 50, everything: All = False) -> None:
    """Show an agent's trust score, from 0 to 1, which moves with the outcomes of its missions, and which moved it.

    A mission may require a score of who takes it. What the agent may do without asking is another thing: its level,
    which `agent level` sets.
    """
    from rich.console import Group
    from rich.text import Text

    from cli.text import line, moment, table

    place = f"/trust-scores/{quote(agent, safe='')}"
    score = client.api.get(place)
    changes = client.api.rows(f"{place}/changes", None if everything else limit)
    cells = [(moment(c["at"]), c["mission_id"], c["outcome"], f"{c['before']:g}", f"{c['after']:g}") for c in changes]
    head = Text(f"{line(score['name'])}: {score['score']:g}")
    rest = [table(("when", "mission", "outcome", "before", "after"), cells)] if cells else []
    client.answer(score | {"changes": changes}, lambda: Group(head, *rest))
    client.tell_of_more(changes)


@client_command(app, "rotate-key")
def rotate_key(
    client: Client,
    agent: AgentName,
    grace: Annotated[float, number("Hours that the old key still opens, at most 168.", least=0)] = 24,
) -> None:
    """Give an agent a new key, which is shown once."""
    from cli.keys import described as described_key

    made = client.api.post(f"{_place(agent)}/rotate-key", {"grace_hours": grace})
    client.answer(made, lambda: described_key(made))


def _answer(client: Client, agent: str, verb: str, body: dict[str, str]) -> None:
    changed = client.api.post(f"{_place(agent)}/{verb}", body)
    client.answer(changed, lambda: described(changed))


def _place(agent: str) -> str:
    return f"/agents/{quote(agent, safe='')}"


def _cap(usd: str | None) -> str:
    return "any sum" if usd is None else f"{usd} USD"


def _heard(agent: dict[str, Any]) -> str | None:
    """Say when an agent was heard of, and that it has been silent for too long."""
    from cli.text import moment

    at = moment(agent["last_heartbeat_at"])
    return at if agent["silence"] == "none" else f"{at} ({agent['silence']})"


def described(agent: dict[str, Any]) -> "RenderableType":
    """An agent's facts, line by line; a token or key, where one is shown, comes last."""
    from cli.text import facts, moment

    token = agent.get("registration_token")
    return facts(
        [
            ("agent", agent["agent_id"]),
            ("name", agent["name"]),
            ("registration", agent["registration"]),
            ("status", agent["status"]),
            ("level", agent["level"]),
            ("may spend", f"{_cap(agent['run_cap_usd'])} a run, {_cap(agent['daily_cap_usd'])} a day"),
            ("endpoint", agent["endpoint"]),
            ("can", ", ".join(agent["capabilities"])),
            ("tools", ", ".join(agent["tools"]) or "none"),
            ("registered", f"{moment(agent['created_at'])}, by {agent['requested_by']}"),
            ("decided", agent["decided_at"] and f"{moment(agent['decided_at'])}, by {agent['decided_by']}"),
            ("last heard of", _heard(agent)),
            *([("token", token), ("", "It is not shown again.")] if token else []),
        ]
    )
