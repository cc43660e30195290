"""`mission-control key …`: API keys of the workspace, for admins."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import All, Client, Limit, Yes, client_command, in_path, number

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")

KeyId = Annotated[str, in_path("KEY", "As `key list` shows it.")]


@client_command(app, "create")
def create(
    client: Client,
    principal: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    role: Annotated[
        str | None, typer.Option(help="Of a new human: observer, member, operator or admin.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of a new principal: human, agent or service. [default: human]")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Only for this, as `missions`, `missions:read` or `read`; may be repeated.", metavar="SCOPE"),
    ] = None,
    days: Annotated[float | None, number("How long it opens. [default: for good]")] = None,
    rate: Annotated[int | None, typer.Option(help="Requests a minute. [default: that of the kind]")] = None,
) -> None:
    """Make a key. It is shown once and kept nowhere.

    \b
    Example:
      mission-control key create olga --role operator
      mission-control key create probe --kind agent --scope events --days 30
    """
    body = {"principal": principal, "kind": kind, "role": role, "scopes": scope or [], "expires_in_days": days}
    body["rate_per_minute"] = rate
    made = client.api.post("/keys", body)
    client.answer(made, lambda: described(made))


@client_command(app, "list")
def list_keys(client: Client, limit: Limit = 50, everything: All = False) -> None:
    """List the keys, also those that have ended, without their secrets."""
    from cli.text import moment, table

    rows = client.api.rows("/keys", None if everything else limit)
    columns = ("key", "begins", "principal", "kind", "role", "scopes", "state", "last used")
    cells = [
        (
            r["key_id"],
            r["hint"],
            r["principal"],
            r["kind"],
            r["role"],
            ", ".join(r["scopes"]) or "all",
            _state(r),
            moment(r["last_used_at"]) if r["last_used_at"] else "",
        )
        for r in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "rotate")
def rotate(
    client: Client,
    key: Annotated[str | None, in_path("KEY", "As `key list` shows it to admins. [default: the key that asks]")] = None,
    grace: Annotated[float, number("Hours that the old key still opens, at most 168.", least=0)] = 24,
) -> None:
    """Make a key's successor, which is shown once; the old key opens for the grace period yet."""
    key = key or client.api.get("/status")["caller"]["key_id"]
    made = client.api.post(f"/keys/{key}/rotate", {"grace_hours": grace})
    client.answer(made, lambda: described(made))


@client_command(app, "revoke")
def revoke(client: Client, key: KeyId, yes: Yes = False) -> None:
    """End a key now: it is refused within a second."""
    client.confirm(f"End {key} now?", yes)
    ended = client.api.delete(f"/keys/{key}")
    client.answer(ended, lambda: described(ended))


def _state(key: dict[str, Any]) -> str:
    """How it stands, and since or until when."""
    from cli.text import moment

    state = str(key["state"])
    if state == "revoked":
        return f"revoked {moment(key['revoked_at'])}"
    if state == "expired":
        return f"expired {moment(key['expires_at'])}"
    return f"{state} until {moment(key['expires_at'])}" if key["expires_at"] else state


def described(key: dict[str, Any]) -> "RenderableType":
    """A key's facts, line by line; the secret, where it is shown, comes last."""
    from cli.text import facts

    return facts(
        [
            ("key", key["key_id"]),
            ("principal", f"{key['principal']} ({key['kind']})"),
            ("role", key["role"]),
            ("scopes", ", ".join(key["scopes"]) or "all that its owner may"),
            ("state", _state(key)),
            *([("secret", key["secret"]), ("", "It is not shown again.")] if key.get("secret") else []),
        ]
    )
