"""`mission-control run …`: executions that cost something, and the tools they called."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import All, Client, Limit, client_command, in_path

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    no_args_is_help=True, help="See executions: what they cost, what blocked them, which tools they called."
)

RunId = Annotated[str, in_path("RUN", "As `run list` shows it.")]


@client_command(app, "list")
def list_runs(
    client: Client,
    status: Annotated[str | None, typer.Option(help="running, success, failed or blocked.", show_default=False)] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent, by name or id.", show_default=False)] = None,
    mission: Annotated[str | None, typer.Option(help="Only of this mission.", show_default=False)] = None,
    ticket: Annotated[str | None, typer.Option(help="Only of this ticket.", show_default=False)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List executions, the newest first.

    \b
    Example:
      mission-control run list --status blocked
    """
    from cli.text import moment, table, word

    filters = {"status": status, "agent_id": agent, "mission_id": mission, "ticket_id": ticket}
    rows = client.api.rows("/runs", None if everything else limit, **filters)
    columns = ("run", "status", "started", "agent", "mission", "ticket", "USD", "promised", "cap", "tokens")
    cells = [
        (
            r["run_id"],
            word(r["status"] or "running"),
            moment(r["started_at"]),
            r["agent_id"],
            r["mission_id"],
            r["ticket_id"],
            r["usd"],
            r["reserved_usd"],
            r["cap_usd"] or "none",
            r["tokens"],
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(client: Client, run: RunId) -> None:
    """Show an execution: what it took of what it may, and what blocked it."""
    found = client.api.get(f"/runs/{run}")
    client.answer(found, lambda: _shown(found))


@client_command(app, "tools")
def tools(client: Client, run: RunId, limit: Limit = 50, everything: All = False) -> None:
    """List the tools that an execution called or asked to call, in their order, and what was said of each."""
    rows = client.api.rows(f"/runs/{run}/tool-calls", None if everything else limit)
    client.answer(rows, lambda: listed(rows))


def listed(rows: list[dict[str, Any]]) -> "RenderableType":
    """Calls of tools, one a row."""
    from cli.text import duration, table, word

    cells = [
        (
            r["number"],
            r["tool"],
            word(r["status"]),
            r["risk"],
            r["usd"],
            duration(r["duration_ms"] / 1000) if r["duration_ms"] is not None else "",
            _said(r),
        )
        for r in rows
    ]
    return table(("call", "tool", "status", "risk", "USD", "took", "said"), cells)


def _said(call: dict[str, Any]) -> str | None:
    """Say why it may not be made, and how it failed; of what was made though it might not, both."""
    error: str | None = call["error"]
    reason: str | None = call["reason"]
    return f"{reason}; it failed: {error}" if error and reason else error or reason


def _shown(run: dict[str, Any]) -> "RenderableType":
    from cli.text import duration, facts, moment, word

    return facts(
        [
            ("run", run["run_id"]),
            ("status", word(run["status"] or "running")),
            ("because", run["reason"]),
            ("blocked by", run["blocked_by"]),
            ("agent", run["agent_id"]),
            ("level", run["level"]),
            ("mission", run["mission_id"]),
            ("ticket", run["ticket_id"]),
            ("started", f"{moment(run['started_at'])}, by {run['created_by']}"),
            ("ended", moment(run["ended_at"])),
            ("took", duration(run["duration_seconds"]) if run["duration_seconds"] is not None else None),
            ("USD", f"{run['usd']} paid, {run['reserved_usd']} promised, of {run['cap_usd'] or 'any'}"),
            ("tokens", f"{run['tokens']}, of {run['cap_tokens'] or 'any'}"),
            ("calls", str(run["calls"])),
        ]
    )
