"""Names of the greatest length, and longer ones that are kept already: what is paid under them is paid, and told."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from models.domain.names import MAX_ID, MAX_NAME, MAX_TICKET
from models.schemas.runs import RunCreate
from models.settings import Settings
from models.store import runs
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.api import Caller, Team, add_agents, served
from tests.fixtures.budgets import entries
from tests.fixtures.watching import PATIENCE, tell, watching

API = "/api/v1"
WIDE = "\U0001d11e"
"""Four bytes, and one character."""
LONGEST = ("T" * MAX_TICKET, WIDE * MAX_TICKET)
LONGER = ("T" * 231, "T" * 245, "T" * 256, WIDE * 256)
"""As older versions took them."""


async def done(answer: httpx2.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()["data"]


async def overrun(agent: httpx2.AsyncClient, run: str, key: str = "k") -> httpx2.Response:
    """Reserve little, and pay more than any limit leaves."""
    await done(
        await agent.post(f"{API}/runs/{run}/reservations", json={"usd": "0.01"}, headers={"Idempotency-Key": key})
    )
    return await agent.post(f"{API}/runs/{run}/reservations/{key}/settle", json={"usd": "500"})


async def events_of(address: str, key: str, subject: str = "") -> list[dict[str, Any]]:
    """All that a stream replays from the beginning, up to the end of a run."""
    found: list[dict[str, Any]] = []
    filters = {"subject": subject} if subject else {}
    async with (
        httpx2.AsyncClient(timeout=PATIENCE, headers={"X-API-Key": key}) as client,
        client.stream("GET", f"{address}{API}/events", params={"after": "0-0-0", **filters}) as response,
    ):
        assert response.status_code == 200, await response.aread()
        async for event in httpx2.EventSource(response):
            found.append(json.loads(event.data))
            if subject or event.event == "run.ended":
                break
    return found


async def kept(db: Database, team: Team, ticket: str) -> str:
    """A run on a ticket that an older version took."""
    new = RunCreate.model_construct(agent_id="agent", ticket_id=ticket)
    async with db.workspace(team.workspace_id) as session:
        return await runs.start(session, team.workspace_id, new, Actor("agent", "request-1"), by_agent=True)


async def is_all_told(settings: Settings, api: httpx2.AsyncClient, team: Team, ticket: str) -> list[dict[str, Any]]:
    """What its workspace reads of a crossed ticket: the alert, the question, the log, its agents' acts, and events."""
    about = f"ticket/{ticket}"
    alerts = (await done(await api.get(f"{API}/alerts")))["items"]
    assert about in {alert["subject_id"] for alert in alerts}
    asked = (await done(await api.get(f"{API}/decisions?kind=budget")))["items"]
    assert f"budget.ticket.{ticket}.1" in {decision["decision_id"] for decision in asked}
    log = (await done(await api.get(f"{API}/audit?limit=200")))["items"]
    assert about in {row["subject"]["id"] for row in log}
    acts = (await done(await api.get(f"{API}/activity")))["items"]
    assert about in {act["subject"]["id"] for act in acts}
    async with served(settings) as address:
        told = await events_of(address, team.observer)
        [one] = await events_of(address, team.observer, about)
    assert one["type"] == "budget.exceeded"
    assert {about, f"budget.ticket.{ticket}.1"} <= {event["subject"]["id"] for event in told}
    return told


@pytest.mark.parametrize("ticket", LONGEST, ids=["letters", "wide"])
async def test_the_longest_ticket_through_a_crossing(
    settings: Settings, api: httpx2.AsyncClient, client: Caller, team: Team, other_team: Team, db: Database, ticket: str
) -> None:
    agent = client(team.agent)
    run = (await done(await agent.post(f"{API}/runs", json={"ticket_id": ticket})))["run_id"]
    async with (
        served(settings) as address,
        watching(address, team.observer) as watch,
        watching(address, other_team.observer) as elsewhere,
    ):
        assert (await overrun(agent, run)).status_code == 200
        await tell(db, other_team.workspace_id, "theirs")
        assert await elsewhere.subjects(1) == ["theirs"]
        await watch.take(6)
    assert (await done(await api.get(f"{API}/runs/{run}")))["status"] == "blocked"
    await done(await agent.post(f"{API}/runs/{run}/end", json={"status": "failed"}))
    told = await is_all_told(settings, api, team, ticket)
    assert max(len(event["subject"]["id"]) for event in told) <= MAX_ID


@pytest.mark.parametrize("ticket", LONGER, ids=["231", "245", "256", "wide"])
async def test_longer_ones_that_are_kept_are_paid_told_and_ended(
    settings: Settings, api: httpx2.AsyncClient, client: Caller, team: Team, other_team: Team, db: Database, ticket: str
) -> None:
    agent, run = client(team.agent), await kept(db, team, ticket)
    async with served(settings) as address, watching(address, other_team.observer) as elsewhere:
        paid = await overrun(agent, run)
        assert paid.status_code == 200, paid.text
        await tell(db, other_team.workspace_id, "theirs")
        assert await elsewhere.subjects(1) == ["theirs"]
    assert [row["usd"] for row in await entries(db, team.workspace_id) if row["kind"] == "settle"] == [500]
    listed = (await done(await api.get(f"{API}/runs", params={"ticket_id": ticket})))["items"]
    assert [(each["run_id"], each["status"]) for each in listed] == [(run, "blocked")]
    costs = await done(await api.get(f"{API}/costs", params={"ticket_id": ticket, "group_by": "ticket"}))
    assert [group["key"] for group in costs["items"]] == [ticket]
    answer = {"decision": "approve", "explanation": "needed"}
    path = f"{API}/decisions/budget.ticket.{ticket}.1/resolve"
    assert (await done(await api.post(path, json=answer)))["status"] == "approved"
    await done(await agent.post(f"{API}/runs/{run}/end", json={"status": "failed"}))
    await is_all_told(settings, api, team, ticket)


async def test_a_limit_of_nothing_on_a_longer_one(api: httpx2.AsyncClient, team: Team, db: Database) -> None:
    cap = {"scope": "ticket", "owner": "category", "name": "default", "cap_usd": "0", "cap_tokens": None}
    await done(await api.put(f"{API}/budgets", json=cap))
    run = await kept(db, team, LONGER[2])
    assert (await done(await api.get(f"{API}/runs/{run}")))["blocked_by"] == "ticket"


def cap(name: str) -> dict[str, Any]:
    return {"scope": "ticket", "owner": "ticket", "name": name, "cap_usd": "1", "cap_tokens": None}


NAMING: dict[str, Callable[[str], dict[str, Any]]] = {
    "POST /runs": lambda name: {"ticket_id": name},
    "PUT /budgets": cap,
    "PATCH /budgets": cap,
}


@pytest.mark.parametrize("route", NAMING)
async def test_how_long_a_ticket_s_name_may_be(api: httpx2.AsyncClient, route: str) -> None:
    method, path = route.split()
    for name in (*LONGEST, "  " + "e\u0301" * 98):
        await done(await api.request(method, f"{API}{path}", json=NAMING[route](name)))
    for name in ("T" * (MAX_TICKET + 1), "\ufdfa" * 12):
        answer = await api.request(method, f"{API}{path}", json=NAMING[route](name))
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")
        assert f"{MAX_TICKET} characters" in answer.json()["error"]["message"], answer.text


async def test_all_other_names_of_the_greatest_length(
    settings: Settings, api: httpx2.AsyncClient, client: Caller, team: Team, db: Database
) -> None:
    """An agent, a principal, a tool, the keys of a cost and of a correction, a repository, and a thing reported of."""
    name, key = WIDE * MAX_NAME, "k" * 255
    async with db.system() as session:
        await add_agents(session, team.workspace_id, name)
    await done(await api.post(f"{API}/principals", json={"name": "p" * MAX_NAME, "role": "observer"}))
    await done(await api.post(f"{API}/repositories", json={"url": "https://git.example/r", "name": "r" * 256}))
    cap = {"scope": "agent_day", "owner": "agent", "name": name, "cap_usd": "0.01", "cap_tokens": None}
    await done(await api.put(f"{API}/budgets", json=cap))
    run = (await done(await api.post(f"{API}/runs", json={"agent_id": name})))["run_id"]
    call = {"tool": WIDE * 256, "env": "e" * 256, "arguments": {}}
    assert (await api.post(f"{API}/runs/{run}/tool-calls", json=call)).status_code in (201, 403)
    assert (await overrun(api, run, key)).status_code == 200
    fix = {"usd": "-1", "reason": "dear"}
    await done(await api.post(f"{API}/runs/{run}/adjustments", json=fix, headers={"Idempotency-Key": key[:-1]}))
    report = {"type": "subsystem.report", "subject": {"kind": "k" * 64, "id": WIDE * MAX_ID}, "data": {}}
    await done(await client(team.service).post(f"{API}/events", json=report))
    await done(await api.post(f"{API}/runs/{run}/end", json={"status": "failed"}))
    async with served(settings) as address:
        told = await events_of(address, team.observer)
    assert max(len(event["subject"]["id"]) for event in told) == MAX_ID
    for path in ("audit", "activity", "alerts", "decisions", "budgets", "costs?group_by=agent", "repositories"):
        await done(await api.get(f"{API}/{path}"))
