"""`mission-control mission …`: file missions, watch them, steer them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import typer

from cli import candidates
from cli.command import All, Client, Limit, MissionId, Reason, Yes, client_command, number, option
from cli.errors import Refused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.client import Api

app = typer.Typer(no_args_is_help=True, help="File missions, watch them, steer them.")
app.add_typer(candidates.app, name="candidate")

Severity = Literal["critical", "high", "medium", "low"]
Status = Literal["open", "in_progress", "observing", "resolved", "escalated"]
Keep = Annotated[bool | None, typer.Option("--keep/--roll-back", help="After the merge: what becomes of it.")]
TAKEN_UP_SECONDS = 5.0
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Then follow it to its end.")]


@client_command(app, "create")
def create(
    client: Client,
    repo: Annotated[str | None, option("REPOSITORY", "A registered repository: name, id or URL.")] = None,
    branch: Annotated[str | None, option("BRANCH", "Target branch. [default: the repository's]")] = None,
    severity: Annotated[Severity | None, option("critical|high|medium|low", "How urgent. [default: medium]")] = None,
    subsystem: Annotated[str | None, option("NAME", "What is affected. [default: the repository]")] = None,
    symptom: Annotated[list[str] | None, option("TEXT", "What is wrong. May be repeated.")] = None,
    must_pass: Annotated[
        list[str] | None, option("TEST", "A test that fails now and must pass. May be repeated.")
    ] = None,
    patch: Annotated[
        list[str] | None, option("FILE", "A unified diff's file, or - for stdin. May be repeated.")
    ] = None,
    ref: Annotated[list[str] | None, option("REF", "A ref of the repository to try, after the patches.")] = None,
    approve_needed: Annotated[bool, typer.Option("--approve-needed", help="Ask a human before the merge.")] = False,
    window: Annotated[
        float | None, number("Minutes to observe after the merge. [default: 30]", metavar="MINUTES")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="The mission as YAML, in the API's own words.", exists=True)] = None,
    execute: Annotated[bool, typer.Option("--execute", "-x", help="Start it at once.")] = False,
    watch: Watch = False,
) -> int | None:
    """File a mission. What an option says goes before what the file says.

    \b
    Examples:
      mission-control mission create --repo invoices --symptom "VAT is short" \\
          --must-pass tests/test_vat.py::test_half_up --patch fix.diff --execute --watch
      mission-control mission create --file mission.yaml
    """
    from cli import package

    body = package.from_file(file) if file else {}
    given = package.Options(repo, branch, severity, subsystem, symptom, must_pass, patch, ref, approve_needed, window)
    new = package.merged(body, given)
    if (execute or watch) and not new.get("patch_candidates"):
        raise typer.BadParameter("there is nothing to try: give --patch or --ref, or leave --execute and --watch out")
    mission = client.api.post("/missions", new, key=str(uuid4()))
    return _filed(client, mission, execute, watch)


@client_command(app, "list")
def list_missions(
    client: Client,
    status: Annotated[Status | None, typer.Option(help="Only those that stand there.", show_default=False)] = None,
    severity: Annotated[Severity | None, typer.Option(help="Only these.", show_default=False)] = None,
    by: Annotated[str | None, typer.Option(help="Only those that this one filed.", show_default=False)] = None,
    assigned_to: Annotated[
        str | None, typer.Option(help="Only those that are for this one.", metavar="NAME", show_default=False)
    ] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List missions, the newest first."""
    from cli.text import moment, table, word

    filters = {"status": status, "severity": severity, "created_by": by, "assigned_to": assigned_to}
    rows = client.api.rows("/missions", None if everything else limit, sort="-created_at", **filters)
    columns = ("mission", "severity", "status", "outcome", "stage", "assigned to", "filed", "subsystem")
    cells = [
        (
            m["mission_id"],
            m["severity"],
            word(m["status"]),
            word(m.get("outcome") or ""),
            "blocked" if m.get("blocked") else "paused" if m.get("paused") else m.get("stage"),
            m["assigned_to"],
            moment(m.get("created_at")),
            m["subsystem_id"],
        )
        for m in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(client: Client, mission_id: MissionId) -> None:
    """Show one mission: its package, its stages, where its evidence is."""
    from rich.console import Group
    from rich.text import Text

    from cli.watch import candidate_table, stage_table

    place = f"/missions/{mission_id}"
    mission = client.api.get(place)

    def shown() -> "RenderableType":
        candidates, stages = (client.api.rows(f"{place}/{what}", None) for what in ("candidates", "stages"))
        tried = candidate_table(candidates, stages)
        return Group(_described(mission), Text(), tried, Text(), stage_table(stages))

    client.answer(mission, shown)


@client_command(app, "execute")
def execute(client: Client, mission_id: MissionId, watch: Watch = False) -> int | None:
    """Start a mission that was filed, and has a candidate: `mission candidate add` adds one."""
    return _start(client, mission_id, watch)


@client_command(app, "watch")
def watch(client: Client, mission_id: MissionId) -> int:
    """Follow a mission to its end, stage by stage.

    The exit code tells the outcome: 0 merged, 10 rolled back, 11 denied, 12 expired, 13 failed, 14 canceled,
    15 terminated.
    """
    from cli.watch import follow

    return follow(client.api, mission_id, as_json=client.as_json)


@client_command(app, "logs")
def logs(
    client: Client,
    mission_id: MissionId,
    stage: Annotated[str | None, typer.Option(help="Number or name. [default: the latest that has a log]")] = None,
    candidate: Annotated[int | None, option("NUMBER", "Of this candidate, from 0. [default: tried last]")] = None,
    round: Annotated[int | None, option("NUMBER", "Of this round, from 0. [default: the last]")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the command runs.")] = False,
) -> None:
    """Print what a stage's commands printed.

    \b
    Example:
      mission-control mission logs mission_20250110_001 --stage run_tests -f
    """
    from cli.logs import Place, show_log

    show_log(client.api, mission_id, Place(stage, round, candidate), follow=follow, as_json=client.as_json)


@client_command(app, "note")
def note(
    client: Client,
    mission_id: MissionId,
    text: Annotated[str, typer.Argument(help="What to remark.", show_default=False)],
) -> None:
    """Add a remark to a running mission's history."""
    _control(client, mission_id, "inject", {"text": text})


@client_command(app, "pause")
def pause(client: Client, mission_id: MissionId, reason: Reason = "") -> None:
    """Hold a mission; the answer says whether a command was stopped."""
    _control(client, mission_id, "pause", {"reason": reason})


@client_command(app, "resume")
def resume(client: Client, mission_id: MissionId, reason: Reason = "") -> None:
    """Let a paused mission go on."""
    _control(client, mission_id, "resume", {"reason": reason})


@client_command(app, "cancel")
def cancel(
    client: Client,
    mission_id: MissionId,
    reason: Reason = "",
    keep: Keep = None,
    yes: Yes = False,
) -> None:
    """End a mission. Before the merge nothing is left behind; after it, say --keep or --roll-back."""
    client.confirm(f"End {mission_id}?", yes)
    merged = {None: None, True: "keep", False: "roll_back"}[keep]
    body = {"reason": reason} | ({"merged": merged} if merged else {})
    try:
        _control(client, mission_id, "cancel", body)
    except Refused as refusal:
        if refusal.code != "merged_choice_required":
            raise
        message = "the change is merged: say --keep to leave it there, or --roll-back to take it back"
        raise Refused(refusal.code, message, refusal.request_id) from None


@client_command(app, "retry")
def retry(client: Client, mission_id: MissionId, execute: bool = True, watch: Watch = False) -> int | None:
    """File an ended mission again, as a new one, and start it."""
    mission = client.api.post(f"/missions/{mission_id}/retry", key=str(uuid4()))
    return _filed(client, mission, execute, watch)


def _filed(client: Client, mission: dict[str, Any], execute: bool, watch: bool) -> int | None:
    """Go on with a new mission as its filer wishes."""
    if not (execute or watch):
        client.answer(mission, lambda: _described(mission))
        return None
    # Said before it is started: what was filed must not be lost when the start is refused.
    typer.echo(f"{mission['mission_id']} is filed", err=True)
    return _start(client, mission["mission_id"], watch)


def _start(client: Client, mission_id: str, watch: bool) -> int | None:
    from rich.console import Group

    from cli.watch import follow

    client.api.post(f"/missions/{mission_id}/execute", {"mission_type": "coding"}, key=str(uuid4()))
    if watch:
        return follow(client.api, mission_id, as_json=client.as_json)
    mission = _taken_up(client.api, mission_id)
    client.answer(mission, lambda: Group(_described(mission), *_how_it_goes_on(mission)))
    return None


def _taken_up(api: "Api", mission_id: str) -> dict[str, Any]:
    """The mission as soon as a worker has begun with it, or as it is after some seconds without one."""
    until, pause = time.monotonic() + TAKEN_UP_SECONDS, 0.1
    while True:
        mission = _begun(api, mission_id)
        if mission["status"] != "open" or mission["paused"] or time.monotonic() > until:
            return mission
        time.sleep(pause)
        pause *= 2


def _begun(api: "Api", mission_id: str) -> dict[str, Any]:
    """A mission that was started just now; a refusal to show it must not read as one to start it."""
    try:
        mission: dict[str, Any] = api.get(f"/missions/{mission_id}")
    except Refused as error:
        told = f"the mission is started, and `mission watch {mission_id}` follows it; it is not shown: {error.message}"
        raise Refused(error.code, told, error.request_id) from error
    return mission


def _how_it_goes_on(mission: dict[str, Any]) -> list[str]:
    """Say that the mission runs, and how to see what becomes of it; what holds it is told already."""
    if mission["paused"] or mission.get("outcome"):
        return []
    state = "it waits for a worker" if mission["status"] == "open" else "it runs"
    return [f"{state}; `mission watch {mission['mission_id']}` follows it"]


def _control(client: Client, mission_id: str, verb: str, body: dict[str, Any]) -> None:
    from rich.text import Text

    from cli.text import line

    answer = _said(client, f"/missions/{mission_id}/{verb}", body)
    effect = _ALREADY.get(verb, "already") if answer["effect"] == "already" else line(answer["effect"])
    stage = f" (stage {line(answer['stage'])})" if answer.get("stage") else ""
    why = f": {line(answer['reason'])}" if answer.get("reason") else ""
    client.answer(answer, lambda: Text(effect.replace("_", " ") + stage + why))


_ALREADY = {
    "pause": "already paused",
    "resume": "goes on already: it was not paused",
    "cancel": "already canceled: it is on its way to its end",
}
"""What was so before a command that changed nothing."""


def _said(client: Client, path: str, body: dict[str, Any]) -> Any:
    """Say it, and once more under the same key where no worker answered: one that restarts is back by then."""
    key = str(uuid4())
    try:
        return client.api.post(path, body, key=key)
    except Refused as refusal:
        if refusal.code != "worker_unavailable":
            raise
    return client.api.post(path, body, key=key)


def _held(mission: dict[str, Any]) -> str | None:
    """Say what holds the mission, and what helps."""
    if not mission["paused"]:
        return None
    return mission["blocked"] or "yes; `mission resume` lets it go on"


def _last_pause(mission: dict[str, Any]) -> str | None:
    """Say who paused the mission last, when and why."""
    from cli.text import moment
    from cli.watch import commands, said

    pauses = [event for event in commands(mission) if event["action"] == "pause"]
    return f"{said(pauses[-1]).removeprefix('paused ')}, {moment(pauses[-1]['at'])}" if pauses else None


def _asked_of(trust: dict[str, Any]) -> list[tuple[str, object]]:
    """What is asked of whoever takes the mission, what it may write, and whether its merge waits for a human."""
    return [
        ("trust score required", trust["required_trust_score"] or None),
        ("roles", ", ".join(trust["allowed_roles"])),
        ("memory write scope", trust["memory_write_scope"]),
        ("requires governance approval", "yes" if trust["requires_governance_approval"] else None),
    ]


def _described(mission: dict[str, Any]) -> "RenderableType":
    from cli.text import facts, moment, word

    workspace, criteria = mission["workspace"], mission["acceptance_criteria"]
    filer = [moment(mission.get("created_at")), f"by {mission['created_by']}" if mission["created_by"] else ""]
    notes = [event for event in mission["remediation_history"] if event["action"] == "note"]
    return facts(
        [
            ("mission", mission["mission_id"]),
            ("status", word(mission["status"])),
            ("paused", _held(mission)),
            ("last pause", _last_pause(mission)),
            ("outcome", word(mission["outcome"]) if mission.get("outcome") else None),
            ("reason", mission.get("reason")),
            ("severity", mission["severity"]),
            ("assigned to", mission["assigned_to"]),
            *_asked_of(mission["trust_requirements"]),
            (
                "repository",
                f"{workspace['repo_path']} ({mission['context'].get('branch') or workspace['working_branch']})",
            ),
            ("symptoms", [s["description"] for s in mission["symptoms"]]),
            ("must pass", criteria.get("must_pass_tests")),
            ("merge", mission.get("merge_sha")),
            ("revert", mission.get("revert_sha")),
            ("notes", [f"{note['actor']}: {note['result']}" for note in notes]),
            ("filed", ", ".join(filter(None, filer))),
            ("ended", moment(mission.get("ended_at"))),
            ("evidence", mission["links"]["evidence"]),
            ("Temporal", mission["links"].get("temporal")),
        ]
    )
