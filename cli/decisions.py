"""`mission-control decision …`: the questions that wait for a human."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.command import All, Client, Limit, client_command, in_path, option
from models.domain.names import POLICY, STRANGERS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.client import Api

PROOF = ("run_tests", "security_scan", "stress_tests", "collect_metrics")

_TOLD_ELSEWHERE = ("diff", "facts", "proposed", "rests_on", "settled_usd", "settled_tokens")

_ORDER = (
    *("kind", "title", "tags", "tool", "arguments", "made", "name", "endpoint", "capabilities", "filed_by"),
    *("agent_id", "memory_id", "mission_id", "run_id", "scope", "subject", "period", "cap_usd", "cap_tokens"),
    *("asked_usd", "asked_tokens", "env", "usd", "merge_sha", "base_sha", "head_sha", "files", "overrides"),
    *("asked_again", "approve", "deny"),
)
"""What a question is about, then where it belongs, what it would cost or change, and what each answer does."""

SHOWN_FINDINGS = 20
"""A scan keeps up to a thousand; the route of the stage has them all."""

app = typer.Typer(no_args_is_help=True, help="See and answer what waits for a human.")

Status = Literal["pending", "approved", "denied", "expired", "canceled", "any"]
_SORTS = (
    "requested_at, risk or expires_at; with - before it, descending. "
    "[default: expires_at of what is pending, else -requested_at]"
)
DecisionId = Annotated[str, in_path("DECISION", "As `decision list` shows it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.", show_default=False)]


@client_command(app, "list")
def list_decisions(
    client: Client,
    status: Annotated[Status, typer.Option(help="What became of them.")] = "pending",
    mission: Annotated[str | None, typer.Option(help="Of this mission only.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="As governance or rollback.", show_default=False)] = None,
    risk: Annotated[str | None, typer.Option(help="GREEN, YELLOW or RED.", show_default=False)] = None,
    by: Annotated[str | None, typer.Option(help="Only what this one asked.", show_default=False)] = None,
    sort: Annotated[str | None, option("FIELD", _SORTS)] = None,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List decisions; without options, those that wait, and first of them what expires first.

    \b
    Example:
      mission-control decision list --status any --mission mission_20250110_001
    """
    from cli.text import moment, table, word

    shown = None if status == "any" else status
    filters = {"status": shown, "mission_id": mission, "kind": kind, "risk": risk, "requester": by}
    sort = sort or ("expires_at" if status == "pending" else "-requested_at")
    rows = client.api.rows("/decisions", None if everything else limit, sort=sort, **filters)
    columns = ("decision", "mission", "kind", "status", "risk", "by", "expires", "reasons")
    cells = [
        (
            d["decision_id"],
            d["mission_id"],
            d["kind"],
            word(d["status"]),
            d["risk"],
            _asking(d["terms"]),
            moment(d["expires_at"]) or "never",
            "; ".join(d["reasons"]),
        )
        for d in rows
    ]
    client.answer(rows, lambda: table(columns, cells))


@client_command(app, "show")
def show(client: Client, decision_id: DecisionId) -> None:
    """Show what is to be approved: the change, its tests, its scan, the risk and the reasons."""
    decision = client.api.get(f"/decisions/{decision_id}")
    client.answer(decision, lambda: question(client.api, decision))


@client_command(app, "approve")
def approve(client: Client, decision_id: DecisionId, reason: Reason) -> None:
    """Approve what `decision show` shows; what asked for it goes on.

    \b
    Example:
      mission-control decision approve 0197… --reason "read the diff, tests are green"
    """
    _resolve(client, decision_id, "approve", reason)


@client_command(app, "deny")
def deny(client: Client, decision_id: DecisionId, reason: Reason) -> None:
    """Deny; what asked for it is not done."""
    _resolve(client, decision_id, "deny", reason)


def _resolve(client: Client, decision_id: str, answer: str, reason: str) -> None:
    from cli.text import line, word

    body = {"decision": answer, "explanation": reason}
    decision = client.api.post(f"/decisions/{decision_id}/resolve", body)
    given = sum(answer["counts"] for answer in decision["answers"])
    missing = f" ({given} of {decision['terms']['people']} approvals)"
    more = missing if decision["status"] == "pending" else _alone(decision)
    client.answer(
        decision, lambda: word(decision["status"]).append(f" {line(decision['decision_id'])}{more}", style="none")
    )


def _alone(decision: dict[str, Any]) -> str:
    """Say that nobody looked but the one who asked."""
    return " (by who asked for it: the workspace has nobody else who could)" if decision["single_operator"] else ""


def question(api: "Api", decision: dict[str, Any]) -> "RenderableType":
    """All that an answer binds, for a human to read before giving it: the risk, why, the tests, the scan, the diff."""
    from rich.console import Group
    from rich.text import Text

    from cli.text import facts, word

    head = facts(
        [
            ("decision", decision["decision_id"]),
            ("mission", decision["mission_id"]),
            ("status", word(decision["status"])),
            ("risk", decision["risk"]),
            ("because", decision["reasons"]),
            *_asked(decision["question"], decision["binding"]),
            ("asked by", _asking(decision["terms"])),
            ("takes", _takes(decision["terms"])),
            ("digest", decision["digest"]),
            ("cost so far", "{usd} USD, {tokens} tokens".format_map(decision["cost_so_far"])),
            ("expires", _expiry(decision)),
            ("answers", [_answer(answer) for answer in sorted(decision["answers"], key=lambda each: each["at"])]),
            ("answered", _answered(decision)),
        ]
    )
    return Group(head, *_proof(api, decision), Text(), *_diff(api, decision), *_note(api, decision))


def _answered(decision: dict[str, Any]) -> str | None:
    """Say what the answers came to, or why nobody gave any."""
    from cli.text import moment

    if decision["explanation"]:
        why = "" if decision["answers"] else f": {decision['explanation']}"
        by = f"{decision['status']} by {decision['resolved_by']}{why}{_alone(decision)}"
        return f"{moment(decision['resolved_at'])}  {by}"
    if earlier := decision["question"].get("rests_on"):
        who = " and ".join(answer["by"] for answer in earlier["answers"] if answer.get("counts", True))
        return f"{who}, in {earlier['decision_id']}, which stands: same files, configuration and policy"
    match decision["status"]:
        case "pending":
            return None
        case "expired":
            return "not enough, in time" if decision["answers"] else "nobody, in time"
        case "canceled":
            by = decision["resolved_by"]
            return f"nobody; taken back{', as nothing waits for it' if by == POLICY else f' by {by}'}"
    return f"by the policy, {'which denies it' if decision['status'] == 'denied' else 'which asks nobody'}"


def _expiry(decision: dict[str, Any]) -> str:
    """Say until when an answer is waited for, and what happens then."""
    from cli.text import moment

    if decision["expires_at"] is None:
        return "never"
    then = f", and is {decision['when_expired']} then" if decision["status"] == "pending" else ""
    return moment(decision["expires_at"]) + then


def _answer(answer: dict[str, Any]) -> str:
    from cli.text import moment

    left = "" if answer["counts"] else " (counts no more)"
    return f"{moment(answer['at'])}  {answer['principal']} {answer['answer']}{left}: {answer['explanation']}"


def _asking(terms: dict[str, Any]) -> str:
    """Say who asked: of those who have no key, nobody."""
    return ", ".join(terms["requesters"]) or "nobody with a key"


def _takes(terms: dict[str, Any]) -> str:
    """Say whose approval it takes."""
    several = f"{terms['people']} different people" if terms["people"] > 1 else "one person"
    agents = f", or an agent: {', '.join(terms['agents'])}" if terms["agents"] else ""
    return f"{several} of role {terms['role']} or higher{agents}"


def _proof(api: "Api", decision: dict[str, Any]) -> list["RenderableType"]:
    """What the stages before found of the very change that is asked about."""
    from cli.watch import stage_row

    if not decision["mission_id"]:
        return []
    place = (decision["round"], decision["candidate"])
    stages = api.rows(f"/missions/{decision['mission_id']}/stages", None)
    found = [s for s in stages if (s["round"], s["candidate"]) == place and s["stage"] in PROOF]
    return [shown for stage in found for shown in (stage_row(stage), *_findings(stage))]


def _findings(stage: dict[str, Any]) -> list["RenderableType"]:
    """What a scan found and where, the worst first; never the text that it was found in, which may be a secret."""
    from rich.text import Text

    from cli.text import line

    found = stage["result"].get("findings", [])
    rows = [f"{f['level']}  {f['path']}:{f['line']}  {f['rule']} ({f['scanner']})" for f in found[:SHOWN_FINDINGS]]
    more = len(found) - len(rows) + stage["result"].get("left_out", 0)
    return [Text(line(f"    {row}")) for row in [*rows, *([f"and {more} more"] if more else [])]]


def _diff(api: "Api", decision: dict[str, Any]) -> list["RenderableType"]:
    if not (decision["question"].get("diff") and "diff" in decision["links"]):
        return []
    return [diff(api.content(decision["links"]["diff"]).decode(errors="replace"))]


def _note(api: "Api", decision: dict[str, Any]) -> list["RenderableType"]:
    """The text of a note that is proposed, where whoever looks may read it."""
    from cli.errors import Refused
    from cli.text import quoted

    if memory_id := decision["binding"].get("memory_id"):
        with suppress(Refused):
            return [quoted(api.get(f"/memory/{memory_id}")["body"])]
    return []


def _asked(question: dict[str, Any], binding: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The question's own facts and what an answer binds, each once: what is, and what it would become.

    Those that the reasons, the cost so far and the diff tell are left out.
    """
    from cli.text import plainly

    for name, value in sorted(question.items(), key=_place):
        if name == "files":
            yield "files", [f"{f['path']} {f['kind']} +{f['added']} -{f['removed']}" for f in value]
        elif name == "filed_by" and value.startswith(STRANGERS):
            yield "filed by", "somebody without a key"
        elif name == "made":
            yield name, "already, without an approval" if value else "not yet"
        elif name not in _TOLD_ELSEWHERE:
            bound = binding.get(name, value)
            now = "none" if value is None else plainly(value)
            yield name.replace("_", " "), value if bound == value else f"{now}; proposed: {plainly(bound)}"
    for name, value in sorted(binding.items(), key=_place):
        if name == "digest":
            yield f"{'note' if 'memory_id' in binding else 'call'} digest", value
        elif name not in (*question, "reasons"):
            yield name.replace("_", " "), value


def _place(field: tuple[str, object]) -> tuple[int, str]:
    """Where a field stands among the others: the database keeps them in no order that would mean anything."""
    name, _ = field
    return _ORDER.index(name) if name in _ORDER else len(_ORDER), name


def diff(patch: str) -> "RenderableType":
    """A unified diff in its usual colours."""
    from rich.text import Text

    from cli.text import quoted, safe

    colours = {"+": "green", "-": "red", "@": "cyan"}
    shown = Text()
    for row in patch.removesuffix("\n").split("\n"):  # of other line ends, each is a part of its line
        header = row.startswith(("+++", "---"))
        shown.append(safe(row) + "\n", style="bold" if header else colours.get(row[:1], ""))
    return quoted(shown)
