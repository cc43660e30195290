"""Caps over HTTP, and what was paid, summed up in every way."""

import asyncio
import base64
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from models.schemas.budgets import GroupBy
from models.store.database import Database
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.budgets import clock_moved, entries, told
from tests.fixtures.missions import filed, refusal, repo

__all__ = ["repo"]

BUDGETS, COSTS = "/api/v1/budgets", "/api/v1/costs"
MONTH: dict[str, Any] = {"scope": "workspace_month", "owner": "workspace", "cap_usd": None, "cap_tokens": 100}


async def shown(api: httpx2.AsyncClient, scope: str) -> dict[str, str | None]:
    items = (await api.get(BUDGETS)).json()["data"]["items"]
    return {row["name"]: row["cap_usd"] for row in items if row["scope"] == scope}


async def of_ticket(api: httpx2.AsyncClient, ticket: str, **named: str) -> tuple[int, str]:
    """Start a run of a ticket: the answer's code, and the category that the run tells."""
    answer = await api.post("/api/v1/runs", json={"ticket_id": ticket, **named})
    return answer.status_code, str(answer.json()["data"]["category"])


async def pay(api: httpx2.AsyncClient, *costs: dict[str, Any], **of_run: str) -> str:
    """Start a run and report what it cost; its id."""
    run = str((await api.post("/api/v1/runs", json=of_run)).json()["data"]["run_id"])
    for cost in costs:
        assert (await api.post(f"/api/v1/runs/{run}/costs", json=cost)).status_code == 201
    return run


class TestLimits:
    async def test_the_defaults(self, api: httpx2.AsyncClient) -> None:
        assert await shown(api, "run") == {"intern": "0.25", "lead": "1.50", "specialist": "0.75"}
        assert await shown(api, "agent_day") == {"intern": "2", "lead": "12", "specialist": "5"}
        assert await shown(api, "ticket") == {"content": "6", "default": "6", "engineering": "8"}
        assert await shown(api, "workspace_month") == {"": None}

    async def test_they_are_listed_by_pages_in_the_order_of_the_limits(self, api: httpx2.AsyncClient) -> None:
        for number in range(5):
            cap = {"scope": "ticket", "owner": "ticket", "name": f"T{number}", "cap_usd": "1", "cap_tokens": None}
            assert (await api.put(BUDGETS, json=cap)).status_code == 200

        async def page(**asked: Any) -> tuple[list[tuple[str, ...]], str | None]:
            data = (await api.get(BUDGETS, params=asked)).json()["data"]
            return [(row["scope"], row["owner"], row["name"]) for row in data["items"]], data["next_cursor"]

        every, end = await page()
        assert (len(every), end, every[0], every[-1][0]) == (15, None, ("run", "level", "intern"), "workspace_month")
        for sort, wanted in (("scope", every), ("-scope", every[::-1])):
            found, cursor = await page(limit=4, sort=sort)
            while cursor:
                more, cursor = await page(limit=4, sort=sort, cursor=cursor)
                found += more
            assert found == wanted
        assert (await page(limit=3, offset=12))[0] == every[12:]
        forged = base64.urlsafe_b64encode(json.dumps(["scope", "run", 1, 2]).encode()).decode()
        assert refusal(await api.get(BUDGETS, params={"cursor": forged})) == (422, "invalid_cursor")

    async def test_an_admin_sets_one_and_it_is_told(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        new = {"scope": "agent_day", "owner": "agent", "name": "bot", "cap_usd": "3.5", "cap_tokens": None}
        assert refusal(await api.put(BUDGETS, json=new)) == (404, "agent_not_found")
        async with db.system() as session:
            await add_agents(session, team.workspace_id, "bot")
        for key in (team.operator, team.observer, team.agent, team.service):
            assert refusal(await client(key).put(BUDGETS, json=new)) == (403, "not_permitted")
        answer = await api.put(BUDGETS, json=new)
        assert (answer.json()["data"]["cap_usd"], answer.json()["data"]["set_by"]) == ("3.5", "admin")
        assert (await shown(api, "agent_day"))["bot"] == "3.5"
        [event] = await told(db, team.workspace_id, "budget.changed")
        assert (event["actor"], event["data"]["after"]) == ("admin", {"cap_usd": "3.5", "cap_tokens": None})
        agent = (await api.get("/api/v1/agents/bot")).json()["data"]
        by_id = await api.put(BUDGETS, json=new | {"name": agent["agent_id"], "cap_tokens": 9})
        assert by_id.json()["data"]["name"] == "bot"
        await api.patch("/api/v1/agents/bot", json={"daily_cap_usd": "4"})
        [kept] = [each for each in (await api.get(BUDGETS)).json()["data"]["items"] if each["name"] == "bot"]
        assert (kept["cap_usd"], kept["cap_tokens"]) == ("4", 9), "dollars leave tokens as they are"

    async def test_a_workspaces_tokens_leave_its_dollars_as_they_are(
        self, client: Caller, team: Team, other_team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        await api.put(BUDGETS, json={**MONTH, "cap_usd": "50"})
        place = f"/api/v1/workspaces/{team.workspace_id}/budget"
        for key in (team.operator, team.observer, team.agent, team.service):
            assert refusal(await client(key).put(place, json={"cap_tokens": 1})) == (403, "not_permitted")
        found = (await api.put(place, json={"cap_tokens": 5_000})).json()["data"]
        assert (found["scope"], found["cap_tokens"], found["cap_usd"]) == ("workspace_month", 5_000, "50")
        assert len(await told(db, team.workspace_id, "budget.changed")) == 2
        elsewhere = f"/api/v1/workspaces/{other_team.workspace_id}/budget"
        assert refusal(await api.put(elsewhere, json={"cap_tokens": 1})) == (404, "workspace_not_found")
        for bad in ({}, {"cap_tokens": -1}, {"cap_tokens": 1.5}, {"cap_tokens": 10**30}):
            assert (await api.put(place, json=bad)).status_code == 422

    async def test_what_is_not_said_of_a_cap_stays(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        key = {"scope": "run", "owner": "level", "name": "intern"}
        for admin in (team.operator, team.observer, team.agent, team.service):
            assert refusal(await client(admin).patch(BUDGETS, json=key | {"cap_usd": "1"})) == (403, "not_permitted")
        seen = []
        for change in ({"cap_tokens": 900}, {"cap_usd": "0.5"}, {"cap_tokens": None}, {"cap_usd": None}):
            answer = (await api.patch(BUDGETS, json=key | change)).json()["data"]
            seen.append((answer["cap_usd"], answer["cap_tokens"]))
        assert seen == [("0.25", 900), ("0.5", 900), ("0.5", None), (None, None)], "the default's dollars first"
        assert len(await told(db, team.workspace_id, "budget.changed")) == 4
        assert "say what to change" in (await api.patch(BUDGETS, json=key)).text
        for bad in ({}, {"cap_usd": "-1"}, {"cap_tokens": 1.5}, {"cap_usd": "1", "owner": "workspace"}):
            assert (await api.patch(BUDGETS, json=key | bad)).status_code == 422
        lost = {"scope": "agent_day", "owner": "agent", "name": "bot", "cap_usd": "3"}
        assert refusal(await api.patch(BUDGETS, json=lost)) == (404, "agent_not_found")

    async def test_two_admins_change_a_cap_at_once(self, api: httpx2.AsyncClient) -> None:
        key = {"scope": "run", "owner": "level", "name": "lead"}
        for number in range(1, 9):
            changes = ({"cap_usd": str(number)}, {"cap_tokens": number})
            await asyncio.gather(*(api.patch(BUDGETS, json=key | change) for change in changes))
            [now] = [row for row in (await api.get(BUDGETS)).json()["data"]["items"] if key.items() <= row.items()]
            assert (now["cap_usd"], now["cap_tokens"]) == (str(number), number)

    async def test_a_categorys_cap_is_an_admins_to_edit(self, api: httpx2.AsyncClient) -> None:
        new = {"scope": "ticket", "owner": "category", "name": "engineering", "cap_usd": "8.5", "cap_tokens": None}
        assert (await api.put(BUDGETS, json=new)).status_code == 200
        assert await shown(api, "ticket") == {"content": "6", "default": "6", "engineering": "8.5"}
        run = (await api.post("/api/v1/runs", json={"ticket_id": "T-1", "category": "engineering"})).json()["data"]
        assert (await api.post(f"/api/v1/runs/{run['run_id']}/costs", json={"usd": "8.5"})).status_code == 201
        late = await api.post(f"/api/v1/runs/{run['run_id']}/costs", json={"usd": "0.01"})
        assert refusal(late) == (409, "budget_exceeded")

    async def test_no_agent_gives_a_ticket_its_category(self, client: Caller, team: Team) -> None:
        agent, service = client(team.agent), client(team.service)
        for body in ({"category": "engineering"}, {"category": "engineering", "ticket_id": "T-1"}):
            assert refusal(await agent.post("/api/v1/runs", json=body)) == (403, "own_runs_only")
        assert await of_ticket(service, "T-1", category="engineering") == (201, "engineering")
        assert await of_ticket(agent, "T-1", category="engineering") == (201, "engineering")
        assert await of_ticket(agent, "T-1") == (201, "engineering")
        assert await of_ticket(agent, "T-2") == (201, "default")

    async def test_a_ticket_keeps_the_category_of_its_first_run(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        assert await of_ticket(api, "T-1", category="content") == (201, "content")
        for caller in (api, client(team.service), client(team.agent)):
            answer = await caller.post("/api/v1/runs", json={"ticket_id": "T-1", "category": "engineering"})
            assert refusal(answer) == (409, "category_differs")
            assert answer.json()["error"]["details"] == {"category": "content"}
        listed = (await api.get("/api/v1/runs?ticket_id=T-1")).json()["data"]["items"]
        assert [run["category"] for run in listed] == ["content"], "what was refused left nothing"
        assert (await api.post("/api/v1/runs", json={"category": "content"})).json()["data"]["category"] == "content"

    async def test_a_ticket_without_a_category_gets_that_of_the_first_who_says_one(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        agent, service = client(team.agent), client(team.service)
        assert await of_ticket(agent, "T-1") == (201, "default")
        assert refusal(await agent.post("/api/v1/runs", json={"ticket_id": "T-1", "category": "engineering"}))[0] == 403
        assert await of_ticket(service, "T-1", category="engineering") == (201, "engineering")
        runs = (await api.get("/api/v1/runs?ticket_id=T-1")).json()["data"]["items"]
        assert [run["category"] for run in runs] == ["engineering"] * 2
        [counter] = (await api.get("/api/v1/budgets/spending?scope=ticket")).json()["data"]["items"]
        assert counter["cap_usd"] == "8"
        other = await service.post("/api/v1/runs", json={"ticket_id": "T-1", "category": "content"})
        assert refusal(other) == (409, "category_differs")

    async def test_no_category_raises_a_limit_that_was_met(
        self, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        service = client(team.service)
        run = (await service.post("/api/v1/runs", json={"ticket_id": "T-1"})).json()["data"]["run_id"]
        assert (await service.post(f"/api/v1/runs/{run}/costs", json={"usd": "6.1"})).status_code == 409
        late = await service.post("/api/v1/runs", json={"ticket_id": "T-1", "category": "engineering"})
        assert (refusal(late), late.json()["error"]["details"]) == ((409, "category_differs"), {"category": "default"})
        assert (await api.get(f"/api/v1/runs/{run}")).json()["data"]["status"] == "blocked"

    async def test_runs_that_start_beside_the_first_who_says_one_have_it_too(self, api: httpx2.AsyncClient) -> None:
        for number in range(4):
            ticket: dict[str, str] = {"ticket_id": f"T-{number}"}
            await api.post("/api/v1/runs", json=ticket)
            bodies = [ticket] * 5 + [ticket | {"category": "engineering"}] + [ticket] * 5
            await asyncio.gather(*(api.post("/api/v1/runs", json=body) for body in bodies))
            runs = (await api.get("/api/v1/runs", params=ticket)).json()["data"]["items"]
            assert [run["category"] for run in runs] == ["engineering"] * 12

    async def test_of_first_runs_at_once_all_have_the_category_of_one(self, api: httpx2.AsyncClient) -> None:
        for number in range(5):
            named: list[dict[str, str]] = [{"category": "content"}, {"category": "engineering"}, {}]
            body = {"ticket_id": f"T-{number}"}
            answers = await asyncio.gather(*(api.post("/api/v1/runs", json=body | each) for each in named * 2))
            codes = {answer.status_code for answer in answers}
            made = {answer.json()["data"]["category"] for answer in answers if answer.status_code == 201}
            runs = (await api.get(f"/api/v1/runs?ticket_id=T-{number}")).json()["data"]["items"]
            [of_all] = {run["category"] for run in runs}
            assert (codes <= {201, 409}, made <= {of_all, "default"}) == (True, True)

    async def test_a_month_that_is_spent_contains_what_starts(self, api: httpx2.AsyncClient) -> None:
        assert (await api.put(BUDGETS, json=MONTH)).status_code == 200
        run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
        assert (await api.post(f"/api/v1/runs/{run}/costs", json={"tokens_in": 100, "usd": 0})).status_code == 201
        late = (await api.post("/api/v1/runs", json={})).json()["data"]
        assert (late["status"], late["blocked_by"]) == ("blocked", "workspace_month")
        [month] = (await api.get(f"{BUDGETS}/spending?scope=workspace_month")).json()["data"]["items"]
        assert (month["settled_tokens"], month["crossed"]) == (100, True)
        await api.put(BUDGETS, json={**MONTH, "cap_tokens": 200})
        assert (await api.get(f"/api/v1/runs/{late['run_id']}")).json()["data"]["status"] is None

    @pytest.mark.parametrize(
        "change",
        [
            {"cap_usd": "-1"},
            {"cap_usd": "NaN"},
            {"cap_usd": "1" * 30},
            {"cap_tokens": -1},
            {"scope": "year"},
            {"owner": "level"},
            {"name": "x"},
            {"scope": "run", "owner": "level", "name": "boss"},
            {"scope": "ticket", "owner": "category", "name": "art"},
        ],
    )
    async def test_a_bad_one_is_refused(self, api: httpx2.AsyncClient, change: dict[str, Any]) -> None:
        answer = await api.put(BUDGETS, json=MONTH | change)
        assert answer.status_code == 422, answer.text
        assert (await shown(api, "workspace_month")) == {"": None}


class TestCosts:
    async def test_every_grouping_adds_up_to_the_same_cent(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, repo: Any, db: Database
    ) -> None:
        mission = (await filed(api, repo))["mission_id"]
        async with db.workspace(team.workspace_id) as session:
            await add_agents(session, team.workspace_id, "bot-0", "bot-1")
        service = client(team.service)
        for number in range(6):
            body = {"agent_id": f"bot-{number % 2}" if number else None, "ticket_id": f"T-{number % 3}"}
            run = (await service.post("/api/v1/runs", json=body | {"mission_id": mission})).json()["data"]["run_id"]
            for cost in ({"usd": "0.0000001"}, {"model": "gpt-5", "tokens_in": 7, "tokens_out": 3}, {"usd": "0.033"}):
                await service.post(f"/api/v1/runs/{run}/costs", json=cost)
        await api.post(f"/api/v1/runs/{run}/adjustments", json={"usd": "-0.01", "reason": "so"})
        totals = set()
        for by in GroupBy:
            found = (await api.get(f"{COSTS}?group_by={by}")).json()["data"]
            for name in ("usd", "tokens", "tokens_in", "tokens_out", "calls", "unpriced_usd"):
                assert sum(Decimal(row[name]) for row in found["items"]) == Decimal(found["total"][name]), (by, name)
            totals.add(tuple(found["total"].values()))
        assert len(totals) == 1
        each = Decimal("0.0000001") + (7 * Decimal("1.25") + 3 * 10) / 10**6 + Decimal("0.033")
        assert Decimal(found["total"]["usd"]) == 6 * each - Decimal("0.01")

    async def test_no_time_ends_before_it_begins(self, api: httpx2.AsyncClient) -> None:
        turned = await api.get(f"{COSTS}?since=2026-12-01&until=2026-11-01")
        assert refusal(turned) == (422, "invalid_input")
        assert "2026-12-01 is after `until`, 2026-11-01" in turned.json()["error"]["message"]
        assert (await api.get(f"{COSTS}?since=2026-11-01&until=2026-11-01")).status_code == 200

    async def test_a_workspaces_tokens_by_day(
        self, client: Caller, team: Team, other_team: Team, api: httpx2.AsyncClient, db: Database, database_url: str
    ) -> None:
        """BUDG-11."""
        for key in (team.admin, other_team.admin):
            await pay(client(key), {"tokens_in": 100, "tokens_out": 11})
        async with clock_moved(database_url, "10 days"):
            await pay(api, {"tokens_in": 7}, {"tokens_out": 2})
        found = (await api.get(f"{COSTS}?workspaceId={team.workspace_id}")).json()["data"]
        first, last = sorted(found["items"], key=lambda row: str(row["key"]))
        assert [(row["tokens_in"], row["tokens_out"], row["tokens"]) for row in (first, last)] == [
            (100, 11, 111),
            (7, 2, 9),
        ]
        days = await db.alone(team.workspace_id, "SELECT DISTINCT day FROM ledger ORDER BY day", {})
        assert [row["day"] for row in days] == [first["key"], last["key"]]
        assert date.fromisoformat(last["key"]) - date.fromisoformat(first["key"]) >= timedelta(days=10)
        assert (found["group_by"], found["total"]["tokens"]) == ("day", 120)

    async def test_a_ticket_has_spent_what_its_rows_come_to(
        self, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        """BUDG-06: over several runs, with a correction, and with a promise that is not paid yet."""
        for ticket, costs in (("T-1", ("0.1", "0.0000001")), ("T-1", ("0.25",)), ("T-2", ("0.5",))):
            run = await pay(api, *({"usd": usd, "tokens_in": 5} for usd in costs), ticket_id=ticket)
        await api.post(f"/api/v1/runs/{run}/adjustments", json={"usd": "-0.01", "reason": "so"})
        assert (await api.post(f"/api/v1/runs/{run}/reservations", json={"usd": "0.2"})).status_code == 201
        shown = (await api.get(f"{BUDGETS}/spending?scope=ticket")).json()["data"]["items"]
        spent = {row["subject"]: (Decimal(row["settled_usd"]), row["settled_tokens"]) for row in shown}
        rows = [row for row in await entries(db, team.workspace_id) if row["kind"] in ("settle", "adjust")]
        assert spent == {
            ticket: (sum(row["usd"] for row in of), sum(row["tokens_in"] + row["tokens_out"] for row in of))
            for ticket in ("T-1", "T-2")
            if (of := [row for row in rows if row["ticket_id"] == ticket])
        }
        assert spent == {"T-1": (Decimal("0.3500001"), 15), "T-2": (Decimal("0.49"), 5)}

    async def test_they_are_narrowed_and_paged(
        self, client: Caller, team: Team, api: httpx2.AsyncClient, db: Database
    ) -> None:
        async with db.workspace(team.workspace_id) as session:
            await add_agents(session, team.workspace_id, "bot-0", "bot-1", "bot-2")
        for number in range(3):
            run = (await api.post("/api/v1/runs", json={"agent_id": f"bot-{number}"})).json()["data"]["run_id"]
            await api.post(f"/api/v1/runs/{run}/costs", json={"usd": f"0.0{number + 1}"})
        found = (await api.get(f"{COSTS}?group_by=agent&limit=1&offset=1")).json()["data"]
        assert [(row["key"], row["usd"]) for row in found["items"]] == [("bot-1", "0.02")]
        assert (found["total"]["usd"], found["groups"]) == ("0.06", 3)
        beyond = (await api.get(f"{COSTS}?group_by=agent&offset=9")).json()["data"]
        assert (beyond["items"], beyond["total"]["usd"], beyond["groups"]) == ([], "0.06", 3)
        one = (await api.get(f"{COSTS}?group_by=model&agent_id=bot-2")).json()["data"]
        assert one["total"]["usd"] == "0.03"
        assert (await api.get(f"{COSTS}?until=2020-01-01")).json()["data"]["total"]["usd"] == "0"
        elsewhere = await api.get(f"{COSTS}?workspace_id=other")
        assert (*refusal(elsewhere), "`X-Workspace`" in elsewhere.text) == (404, "workspace_not_found", True)
        own = await api.get(f"{COSTS}?workspaceId={team.workspace_id}")
        assert own.json()["data"]["items"][0]["calls"] == 3
