"""A run that is stopped by its cap: an agent spends until it is refused, and goes on once an admin says so."""

import json
from typing import Any

from cli.client import Api
from cli.demo.scene import House
from cli.errors import Refused

NAME = "probe"
RESERVED, PAID = "0.09", "0.08"
"""Dollars that each call may take, and that it does take."""

Json = dict[str, Any]


def spend(house: House, admin: Api, workspace: str) -> None:
    """Let an agent in, let it spend up to its cap, raise that, and let it go on."""
    house.tell("\na run is stopped by its cap", "bold")
    with Api(house.settings.api_url, _let_in(house, admin, workspace)) as agent:
        run = agent.post("/runs", {})
        run_id = run["run_id"]
        house.does(NAME, f"starts {run_id}")
        house.answers(f"it may spend {_usd(run['cap_usd'])}, as every {run['level']}'s run")
        while _call(house, agent, run_id):
            pass
        _look(house, agent, run_id)
        if _raise_cap(house, admin, run_id):
            _call(house, agent, run_id)
            ended = agent.post(f"/runs/{run_id}/end", {"status": "success"})
            house.does(NAME, "ends its run")
            house.answers(f"{ended['status']}: {ended['calls']} calls for {_usd(ended['usd'])}")


def _let_in(house: House, admin: Api, workspace: str) -> str:
    """Register the agent as a stranger does, approve it, and fetch its key with the token of the registration."""
    with Api(house.settings.api_url, None) as stranger:
        body = {"name": NAME, "endpoint": "https://agents.example.org/probe", "workspace": workspace}
        asked = stranger.post("/agents", body)
    house.does(NAME, "asks to be let in, without a key")
    house.answers(f"{asked['registration']}: an admin decides")
    approved = admin.post(f"/agents/{asked['agent_id']}/approve", {"explanation": "expected in the demo"})
    house.does("admin", f"lets {NAME} in")
    house.answers(f"{approved['registration']}, at the level {approved['level']}")
    with Api(house.settings.api_url, asked["registration_token"]) as registrant:
        return str(registrant.get(f"/agents/{asked['agent_id']}")["key"])


def _call(house: House, agent: Api, run_id: str) -> bool:
    """Reserve what a call may cost, and pay what it did; whether it was granted."""
    house.does(NAME, f"reserves {_usd(RESERVED)} for a call")
    try:
        held = agent.post(f"/runs/{run_id}/reservations", {"usd": RESERVED})
    except Refused as refusal:
        house.answers(f"refused, {refusal.code}: {refusal.message}", refused=True)
        return False
    paid = agent.post(f"/runs/{run_id}/reservations/{held['cost_id']}/settle", {"usd": PAID})["run"]
    house.answers(f"granted; it took {_usd(PAID)}, so {_usd(paid['usd'])} of {_usd(paid['cap_usd'])} are spent")
    return True


def _look(house: House, agent: Api, run_id: str) -> None:
    """Show how the run stands, and the event that told of it."""
    run = agent.get(f"/runs/{run_id}")
    house.tell(f"the run is {run['status']}; what the event stream says of it:")
    with agent.events("0-0-0", subject=run_id) as events:
        for event in events:
            told = json.loads(event.data)
            house.answers(f"{told['type']} {told['data'].get('reason', '')}")
            if event.event == "run.blocked":
                return


def _raise_cap(house: House, admin: Api, run_id: str) -> bool:
    """Answer the decision that the refusal put to the admins."""
    [decision] = [each for each in admin.rows("/decisions", None, kind="budget", status="pending")]
    proposed = _usd(decision["binding"]["cap_usd"])
    approves = house.agrees(f"Let {run_id} spend up to {proposed}?")
    house.does("admin", f"{'approves' if approves else 'denies'} that the run may spend up to {proposed}")
    body = {"decision": "approve" if approves else "deny", "explanation": "seen in the demo"}
    found = admin.post(f"/decisions/{decision['decision_id']}/resolve", body)
    house.answers(found["status"], refused=not approves)
    return approves


def _usd(amount: str) -> str:
    return f"${float(amount):.2f}"
