"""The demo's first scene: one mission from bug to merged commit, approved in the terminal, and what it can prove."""

from pathlib import Path

from rich.panel import Panel
from rich.table import Table

from cli.client import Api, connect
from cli.decisions import question
from cli.demo import world
from cli.demo.proof import prove
from cli.demo.scene import Audience, House
from cli.text import facts
from cli.watch import OUTCOME_CODES, Json, ending, watch
from models.settings import Settings

WORKSPACE = "default"


def play(house: House) -> int:
    """Register the repository, file the mission, follow it to its end; the exit code that tells its outcome."""
    place = house.repository()
    with connect(house.settings, None, None) as api:
        mission = _mission(api, house, place)
        house.out.print(ending(mission))
        if mission["outcome"] == "merged":
            house.out.print(_proof(api, house.settings, place, mission["mission_id"]))
        links = [("Temporal", mission["links"]["temporal"]), ("API", f"{house.settings.api_url}/api-docs")]
        house.out.print(facts(links))
    return OUTCOME_CODES[mission["outcome"]]


def _mission(api: Api, house: House, place: Path) -> Json:
    new = {"url": str(place), "target_branch": world.BRANCH, "protected": True, "env": "dev"}
    registered = api.post("/repositories", new)
    filed = api.post("/missions", world.mission(registered["repository_id"]))
    house.tell(f"\nmission {filed['mission_id']}: {filed['symptoms'][0]['description']}", "bold")
    house.tell("two patches to try, the first one hasty; the branch is protected, so a human is asked\n", "dim")
    api.post(f"/missions/{filed['mission_id']}/execute", {"mission_type": "coding"})
    return watch(api, filed["mission_id"], Audience(house, lambda mission_id: _answer(api, house, mission_id)))


def _answer(api: Api, house: House, mission_id: str) -> None:
    [decision] = api.rows("/decisions", 1, status="pending", mission_id=mission_id)
    house.out.print(Panel(question(api, decision), title="for your approval", title_align="left"))
    approved = house.agrees("Approve this merge?")
    explanation = "seen in the demo: its tests, its scan and its diff" if approved else "denied in the demo"
    body = {"decision": "approve" if approved else "deny", "explanation": explanation}
    answered = api.post(f"/decisions/{decision['decision_id']}/resolve", body)
    by = " by --yes" if house.wishes.yes else ""
    house.answers(f"{'approved' if approved else 'denied'}{by}", refused=not approved)
    if answered["single_operator"]:
        house.tell("nobody else has a key here: it is recorded that the requester answered", "dim")
    house.tell("")


def _proof(api: Api, settings: Settings, place: Path, mission_id: str) -> Table:
    signers = settings.signing_key.with_name(settings.signing_key.name + ".allowed_signers")
    proof = prove(api, place, signers, WORKSPACE, mission_id)
    return facts(
        [
            ("merge", proof.commit),
            ("git verify-commit", proof.signature),
            ("stage records", f"{proof.records} have their digest and the service's signature"),
            ("stored evidence", f"{proof.stored} have their digest: logs, test reports, samples, diagnostics"),
        ]
    )
