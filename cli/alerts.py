"""`mission-control alert …`: what somebody should look at."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import All, Client, Limit, client_command, in_path

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="See what is wrong, and say that it was seen or is over.")

AlertId = Annotated[str, in_path("ALERT", "As `alert list` shows it.")]
Note = Annotated[str | None, typer.Option(help="What came of it; kept with the alert.", show_default=False)]


@client_command(app, "list")
def list_alerts(
    client: Client,
    status: Annotated[str | None, typer.Option(help="open, acknowledged or resolved.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="As cost_spike or loop.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option(help="About this id.", show_default=False)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List alerts, the newest first."""
    from cli.text import moment, table, word

    rows = client.api.rows(
        "/alerts", None if everything else limit, status=status, kind=kind, subject_id=subject, sort="-detected_at"
    )
    cells = [
        (a["alert_id"], word(a["status"]), a["kind"], moment(a["detected_at"]), _about(a), a["summary"]) for a in rows
    ]
    client.answer(rows, lambda: table(("alert", "status", "kind", "detected", "about", "what"), cells))


@client_command(app, "show")
def show(client: Client, alert_id: AlertId) -> None:
    """Show an alert: since when, what it is about, and who has seen to it."""
    alert = client.api.get(f"/alerts/{alert_id}")
    client.answer(alert, lambda: _shown(alert))


@client_command(app, "ack")
def acknowledge(client: Client, alert_id: AlertId, note: Note = None) -> None:
    """Say that somebody has seen it."""
    _change(client, alert_id, "ack", note)


@client_command(app, "resolve")
def resolve(client: Client, alert_id: AlertId, note: Note = None) -> None:
    """Say that it is over."""
    _change(client, alert_id, "resolve", note)


def _about(alert: dict[str, Any]) -> str:
    return f"{alert['subject_kind']} {alert['subject_id']}"


def _change(client: Client, alert_id: str, verb: str, note: str | None) -> None:
    from cli.text import line, word

    alert = client.api.post(f"/alerts/{alert_id}/{verb}", {"note": note} if note else {})
    client.answer(alert, lambda: word(alert["status"]).append(f" {line(alert['alert_id'])}", style="none"))


def _shown(alert: dict[str, Any]) -> "RenderableType":
    from cli.text import facts, moment, word

    def by(name: str) -> str | None:
        return f"{moment(alert[f'{name}_at'])} by {alert[f'{name}_by']}" if alert[f"{name}_by"] else None

    return facts(
        [
            ("alert", alert["alert_id"]),
            ("status", word(alert["status"])),
            ("kind", alert["kind"]),
            ("about", _about(alert)),
            ("what", alert["summary"]),
            ("detected", moment(alert["detected_at"])),
            ("acknowledged", by("acknowledged")),
            ("resolved", by("resolved")),
            ("note", alert["note"]),
            *((name.replace("_", " "), value) for name, value in alert["details"].items()),
        ]
    )
