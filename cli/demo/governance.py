"""The demo's second scene: who may do what, at what price, and a log that nobody rewrites unseen."""

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.panel import Panel

from cli.client import Api, connect
from cli.decisions import question
from cli.demo import tampering, world
from cli.demo.money import spend
from cli.demo.scene import Audience, House
from cli.errors import Refused
from cli.watch import OUTCOME_CODES, Json, ending, watch

OPERATORS = ("olga", "peter", "maria")


@dataclass(frozen=True)
class Team:
    """The people of a workspace that is made for one run of the scene: neither names nor its log meet older ones."""

    workspace: str
    key_file: Path
    """Holds the admin's key, for the commands, and for whoever looks around afterwards."""
    people: dict[str, Api]

    @property
    def admin(self) -> Api:
        """The one who made the workspace."""
        return self.people["admin"]


def play(house: House) -> int:
    """Show it; the exit code tells how the mission ended, else whether the log was found to be as it is."""
    place = house.repository()
    with ExitStack() as open_:
        team = _team(house, open_)
        mission = _held(house, team, place)
        spend(house, team.admin, team.workspace)
        [decision] = team.admin.rows("/decisions", 1, mission_id=mission["mission_id"])
        seen = tampering.show(house, team.admin, team.key_file, decision["decision_id"])
        if not house.wishes.leave:
            house.tell(f"\nthe admin of {team.workspace}: export MC_API_KEY_FILE={team.key_file}")
    return OUTCOME_CODES[mission["outcome"]] or int(not seen)


def _team(house: House, open_: ExitStack) -> Team:
    """Make the workspace with its people, each with a key of their own."""

    def api(secret: str) -> Api:
        return open_.enter_context(Api(house.settings.api_url, secret))

    slug = f"shop-{secrets.token_hex(3)}"
    with connect(house.settings, None, None) as platform:
        made = platform.post("/workspaces", {"slug": slug, "name": "Shop"})
    key_file = house.settings.data_dir / "governance.key"
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_text(made["secret"], encoding="utf-8")
    people = {"admin": api(made["secret"])}
    for name in OPERATORS:
        key = people["admin"].post("/keys", {"principal": name, "role": "operator", "expires_in_days": 1})
        people[name] = api(key["secret"])
    house.does("admin", f"makes the workspace {slug}, with a key for each of its operators: {', '.join(OPERATORS)}")
    return Team(slug, key_file, people)


def _held(house: House, team: Team, place: Path) -> Json:
    """File a mission for a production repository, and follow it past the people whom the policy wants asked."""
    olga = team.people["olga"]
    house.tell("\na RED act is held: a merge into production", "bold")
    registered = olga.post("/repositories", {"url": str(place), "target_branch": world.BRANCH, "env": "prod"})
    filed = olga.post("/missions", world.mission(registered["repository_id"], ["2-thorough"]))
    house.does("olga", f"files {filed['mission_id']} for {registered['name']}, which is registered as env prod")
    olga.post(f"/missions/{filed['mission_id']}/execute", {"mission_type": "coding"})
    mission = watch(olga, filed["mission_id"], Audience(house, lambda mission_id: _answer(house, team, mission_id)))
    house.out.print(ending(mission))
    return mission


def _answer(house: House, team: Team, mission_id: str) -> None:
    """Let the requester try, then the two others, until the question is answered."""
    [decision] = team.people["olga"].rows("/decisions", 1, status="pending", mission_id=mission_id)
    shown = question(team.people["olga"], decision)
    house.out.print(Panel(shown, title="held for approval", title_align="left"))
    for name in OPERATORS:
        # Whoever asked is refused in any case, so nobody has to be asked whether she may try.
        approves = name == "olga" or house.agrees(f"Approve this merge as {name}?")
        house.does(name, "approves it" if approves else "denies it")
        if _resolve(house, team.people[name], decision["decision_id"], approves) != "pending":
            break
    house.tell("")


def _resolve(house: House, api: Api, decision_id: str, approves: bool) -> str:
    """Answer as somebody, show what comes of it, and give what the decision is then."""
    body = {"decision": "approve" if approves else "deny", "explanation": "read the diff and its tests in the demo"}
    try:
        found = api.post(f"/decisions/{decision_id}/resolve", body)
    except Refused as refusal:
        house.answers(f"refused, {refusal.code}: {refusal.message}", refused=True)
        return "pending"
    given = f"{len(found['answers'])} of {found['terms']['people']} approvals"
    house.answers(f"{found['status']}: {given}" if approves else found["status"], refused=not approves)
    return str(found["status"])
