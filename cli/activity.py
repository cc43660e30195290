"""`mission-control activity …`: what agents did and decided."""

from typing import Annotated, Any

import typer

from cli.command import All, Client, From, Limit, To, client_command

app = typer.Typer(no_args_is_help=True, help="Show what agents did and decided.")


@client_command(app, "list")
def list_activity(
    client: Client,
    limit: Limit = 50,
    everything: All = False,
    agent: Annotated[str | None, typer.Option(help="Only of this agent, by name or id.", show_default=False)] = None,
    status: Annotated[str | None, typer.Option(help="success, failed or blocked.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(help="As in agent.decided.", show_default=False)] = None,
    since: From = None,
    until: To = None,
) -> None:
    """List what agents did, the newest first; `--json` shows all that was said of it.

    \b
    Example:
      mission-control activity list --agent coder --status failed
    """
    from cli.text import moment, table, word

    filters = {"agent_id": agent, "status": status, "action": action, "from": since, "to": until}
    rows = client.api.rows("/activity", None if everything else limit, **filters)
    columns = ("row", "when", "agent", "action", "status", "subject", "said")
    cells = [
        (
            str(r["id"]),
            moment(r["timestamp"]),
            r["agent_id"],
            r["action"],
            word(r["status"] or ""),
            f"{r['subject']['kind']} {r['subject']['id']}",
            _said(r["metadata"]),
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


def _said(metadata: dict[str, Any] | None) -> str:
    """What matters most of an act: what was decided, why it was held, or which tool was called."""
    from cli.text import plainly

    known = metadata or {}
    return next((plainly(known[name]) for name in ("output", "reason", "tool") if known.get(name)), "")
