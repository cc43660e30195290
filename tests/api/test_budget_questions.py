"""What an answer to a question about a limit raises, who may give it, and what becomes of the question."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from models.domain.principals import Kind, Role
from models.schemas.runs import RunCreate
from models.store import runs
from models.store.database import Database
from models.store.events import Actor
from tests.fixtures.access import make_key
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import let_answer
from tests.fixtures.waiting import eventually, somebody_waits

__all__ = ["repo"]
API = "/api/v1"
YES, NO = ({"decision": word, "explanation": "so"} for word in ("approve", "deny"))


@pytest.fixture(autouse=True)
async def _bot(db: Database, team: Team) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "bot")


async def started(api: httpx2.AsyncClient, **values: str) -> str:
    answer = await api.post(f"{API}/runs", json={"agent_id": "bot", **values})
    return str(answer.json()["data"]["run_id"])


async def capped(api: httpx2.AsyncClient, scope: str, owner: str, name: str, **parts: Any) -> None:
    cap = {"scope": scope, "owner": owner, "name": name, "cap_usd": None, "cap_tokens": None}
    answer = await api.put(f"{API}/budgets", json=cap | parts)
    assert answer.status_code == 200, answer.text


async def paid(api: httpx2.AsyncClient, run: str, **cost: Any) -> httpx2.Response:
    return await api.post(f"{API}/runs/{run}/costs", json=cost)


async def over_its_limit(api: httpx2.AsyncClient) -> tuple[str, dict[str, Any]]:
    """Let a run meet its limit; the run, and the question about it."""
    run = await started(api)
    await paid(api, run, usd="0.3")
    [asked] = await pending(api)
    return run, asked


async def test_a_mission_finds_what_holds_its_runs(
    api: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
) -> None:
    """Also once it was answered; and nothing of others."""
    missions = [(await filed(api, repo))["mission_id"] for _ in range(2)]
    for mission in missions:
        run = await started(api, mission_id=mission)
        await paid(api, run, usd="0.3")
    found = [(await api.get(f"{API}/decisions?mission_id={mission}")).json()["data"]["items"] for mission in missions]
    assert [len(each) for each in found] == [1, 1]
    assert found[0] != found[1]
    [asked] = found[0]
    assert (await api.post(f"{API}/decisions/{asked['decision_id']}/resolve", json=NO)).status_code == 200
    [answered] = (await api.get(f"{API}/decisions?mission_id={missions[0]}")).json()["data"]["items"]
    assert (answered["decision_id"], answered["status"]) == (asked["decision_id"], "denied")
    assert (await api.get(f"{API}/decisions?mission_id=none")).json()["data"]["items"] == []


async def pending(api: httpx2.AsyncClient, about: str = "") -> list[dict[str, Any]]:
    """The questions that wait: all, or those about one limit."""
    found = (await api.get(f"{API}/decisions?status=pending&kind=budget")).json()["data"]["items"]
    return [each for each in found if each["decision_id"].startswith(f"budget.{about}")]


async def standing(api: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """The alerts that are open."""
    return list((await api.get(f"{API}/alerts?status=open")).json()["data"]["items"])


async def answer(api: httpx2.AsyncClient, asked: dict[str, Any], said: dict[str, str] = YES) -> httpx2.Response:
    return await api.post(f"{API}/decisions/{asked['decision_id']}/resolve", json=said)


async def shown(api: httpx2.AsyncClient, run: str) -> dict[str, Any]:
    """A run as it is now."""
    return dict((await api.get(f"{API}/runs/{run}")).json()["data"])


@asynccontextmanager
async def being_answered(db: Database, team: Team, asked: dict[str, Any]) -> AsyncIterator[None]:
    """Hold a question as one does who answers it now."""
    async with db.workspace(team.workspace_id) as session:
        held = text("SELECT FROM decision WHERE decision_id = :name FOR UPDATE")
        await session.execute(held, {"name": asked["decision_id"]})
        yield


class TestWhatIsRaised:
    async def test_the_part_that_was_hit_and_not_the_other(self, api: httpx2.AsyncClient) -> None:
        run = await started(api)
        assert refusal(await paid(api, run, usd="0.3")) == (409, "budget_exceeded")
        await capped(api, "run", "run", run, cap_usd="0.25", cap_tokens=100)
        [asked] = await pending(api)
        assert (await answer(api, asked)).status_code == 200
        found = await shown(api, run)
        assert (found["status"], found["cap_usd"], found["cap_tokens"]) == (None, "0.50", 100)
        assert refusal(await paid(api, run, usd="0.01", tokens_in=101)) == (409, "budget_exceeded")

    async def test_the_other_part_stays_that_of_the_level(self, api: httpx2.AsyncClient) -> None:
        await capped(api, "run", "level", "intern", cap_usd="0.25", cap_tokens=100)
        run, asked = await over_its_limit(api)
        await answer(api, asked)
        assert ((await shown(api, run))["cap_usd"], (await shown(api, run))["cap_tokens"]) == ("0.50", 100)

    async def test_what_stays_closed_is_asked_about_again(self, api: httpx2.AsyncClient) -> None:
        run = await started(api)
        assert (await paid(api, run, usd="0.1", tokens_in=50)).status_code == 201
        await paid(api, run, usd="0.3")
        await capped(api, "run", "run", run, cap_usd="0.25", cap_tokens=10)
        [dollars] = await pending(api)
        await answer(api, dollars)
        assert (await shown(api, run))["status"] == "blocked"
        [tokens] = await pending(api)
        assert tokens["question"]["proposed"] == {"cap_usd": "0.50", "cap_tokens": 100}
        await answer(api, tokens)
        assert (await shown(api, run))["status"] is None

    async def test_a_cap_of_nothing(self, api: httpx2.AsyncClient) -> None:
        await capped(api, "run", "agent", "bot", cap_usd="0", cap_tokens=0)
        run = await started(api)
        assert (await shown(api, run))["blocked_by"] == "run"
        [asked] = await pending(api)
        await answer(api, asked)
        assert (await shown(api, run))["status"] is None
        assert (await paid(api, run, usd="0.01", tokens_in=10)).status_code == 201

    async def test_more_tokens_open_nothing_that_dollars_closed(self, api: httpx2.AsyncClient) -> None:
        run = await started(api)
        await capped(api, "run", "run", run, cap_usd="0.25", cap_tokens=100)
        assert (await paid(api, run, usd="0.25")).status_code == 201
        await paid(api, run, usd="0.1")
        await capped(api, "run", "run", run, cap_usd="0.25", cap_tokens=200)
        assert ((await shown(api, run))["status"], len(await pending(api))) == ("blocked", 1)

    async def test_nothing_of_a_limit_that_somebody_else_opened(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        run, asked = await over_its_limit(api)
        async with being_answered(db, team, asked):
            await capped(api, "run", "run", run, cap_usd="1.5")
        assert (await answer(api, asked)).status_code == 200
        assert ((await shown(api, run))["status"], (await shown(api, run))["cap_usd"]) == (None, "1.5")


class TestWhoAnswers:
    async def test_neither_the_agent_that_runs_nor_who_started_it(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            bot = client(await make_key(session, team.workspace_id, "bot", kind=Kind.AGENT))
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
        await let_answer(api, "budget", "bot")
        run = await started(olga)
        await paid(client(team.service), run, usd="0.3")
        [asked] = await pending(api)
        for caller in (bot, olga):
            assert refusal(await answer(caller, asked)) == (403, "own_decision")
        assert (await answer(api, asked)).status_code == 200

    async def test_nor_whose_run_the_same_ticket_holds(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
            await make_key(session, team.workspace_id, "somebody else", role=Role.ADMIN)
        await capped(api, "ticket", "ticket", "T-1", cap_usd="0.2")
        for starter in (api, olga):
            made = await starter.post(f"{API}/runs", json={"ticket_id": "T-1"})
        run = f"{API}/runs/{made.json()['data']['run_id']}"
        assert (await client(team.service).post(f"{run}/costs", json={"usd": "0.3"})).status_code == 409
        [asked] = await pending(api)
        for caller in (api, olga):
            assert refusal(await answer(caller, asked)) == (403, "own_decision")

    @pytest.mark.parametrize("ends", [False, True])
    async def test_nor_an_agent_whose_run_the_ticket_holds_since_it_was_asked_about(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, ends: bool
    ) -> None:
        await let_answer(api, "budget", "agent")
        asked = await about_the_ticket(api, client(team.service))
        agent = client(team.agent)
        assert "agent" not in asked["terms"]["requesters"]
        run = (await agent.post(f"{API}/runs", json={"ticket_id": "T-1"})).json()["data"]
        assert run["status"] == "blocked"
        if ends:
            await agent.post(f"{API}/runs/{run['run_id']}/end", json={"status": "failed"})
        assert refusal(await answer(agent, asked)) == (403, "own_decision")
        [waits] = await pending(api)
        one = (await agent.get(f"{API}/decisions/{asked['decision_id']}")).json()["data"]
        assert waits["terms"] == one["terms"] == asked["terms"] | {"requesters": ["agent", "bot", "service"]}
        answered = (await answer(api, asked)).json()["data"]
        assert (answered["status"], answered["single_operator"]) == ("approved", False)

    async def test_nor_a_person_who_starts_one_while_somebody_else_could(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        asked = await about_the_ticket(api, client(team.service))
        run = await started(api, ticket_id="T-1")
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
        assert refusal(await answer(api, asked)) == (403, "own_decision")
        await started(olga, ticket_id="T-1")
        alone = (await answer(api, asked)).json()["data"]
        assert (alone["status"], alone["single_operator"]) == ("approved", True), "by now both have asked"
        assert (await shown(api, run))["status"] is None

    async def test_a_runs_own_limit_is_nothing_to_others_of_its_ticket(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            olga = client(await make_key(session, team.workspace_id, "olga", role=Role.ADMIN))
        await started(olga, ticket_id="T-1")
        await paid(api, await started(api, ticket_id="T-1"), usd="0.3")
        [asked] = await pending(api)
        await started(olga, ticket_id="T-1")
        assert refusal(await answer(api, asked)) == (403, "own_decision")
        assert (await answer(olga, asked)).json()["data"]["single_operator"] is False

    async def test_an_answer_waits_for_a_run_that_starts(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        await let_answer(api, "budget", "agent")
        asked = await about_the_ticket(api, client(team.service))
        async with db.workspace(team.workspace_id) as session:
            await runs.start(session, team.workspace_id, RunCreate(ticket_id="T-1"), Actor("agent", "test"))
            answering = asyncio.create_task(answer(client(team.agent), asked))

            async def waits() -> bool:
                return await somebody_waits(session) or answering.done()

            await eventually(waits)
        assert refusal(await answering) == (403, "own_decision")


async def about_the_ticket(api: httpx2.AsyncClient, service: httpx2.AsyncClient) -> dict[str, Any]:
    """Let a run that a service started close a ticket's limit; the question about it."""
    await capped(api, "ticket", "ticket", "T-1", cap_usd="0.1")
    await paid(service, await started(service, ticket_id="T-1"), usd="0.2")
    [asked] = await pending(api)
    return asked


BLOCKED = """
    SELECT data ->> 'reason' AS reason FROM event WHERE type = 'run.blocked' AND subject_id = %(run)s ORDER BY id
"""


class TestWhatBecomesOfIt:
    async def test_one_is_put_at_a_time_also_where_the_alert_was_resolved(self, api: httpx2.AsyncClient) -> None:
        await capped(api, "ticket", "ticket", "T-1", cap_usd="0.1")
        first = await started(api, ticket_id="T-1")
        await paid(api, first, usd="0.2")
        [alert] = await standing(api)
        assert (await api.post(f"{API}/alerts/{alert['alert_id']}/resolve", json={})).status_code == 200
        second = await started(api, ticket_id="T-1")
        [asked] = await pending(api)
        await answer(api, asked)
        assert [(await shown(api, run))["status"] for run in (first, second)] == [None, None]

    async def test_one_that_is_denied_says_so_where_its_limit_holds(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        await capped(api, "ticket", "ticket", "T-1", cap_usd="0.1")
        both = [await started(api, ticket_id="T-1") for _ in range(2)]
        other, _ = await over_its_limit(api)
        for run in both:
            await paid(api, run, usd="0.2")
        [asked] = await pending(api, "ticket.")
        said = await answer(api, asked, {"decision": "deny", "explanation": "no more " + 150 * "money "})
        by = said.json()["data"]["resolved_by"]
        begin = f"the limit of ticket 'T-1' of 0.1 USD is crossed, and {by} denied to raise it: no more money money"
        for run in both:
            reason = (await shown(api, run))["reason"]
            assert reason.startswith(begin)
            assert len(reason) < len(begin) + 200
            told = await db.alone(team.workspace_id, BLOCKED, {"run": run})
            assert [event["reason"] == reason for event in told] == [False, True]
        assert "an admin may raise it" in (await shown(api, other))["reason"]
        assert begin in (await paid(api, both[0], usd="0.01")).json()["error"]["message"]
        await capped(api, "ticket", "ticket", "T-1", cap_usd="9")
        assert [(await shown(api, run))["status"] for run in both] == [None, None]

    async def test_one_that_is_denied_holds_who_meets_the_limit_later_until_it_is_put_again(
        self, api: httpx2.AsyncClient
    ) -> None:
        await capped(api, "ticket", "ticket", "T-1", cap_usd="0.1")
        await capped(api, "ticket", "ticket", "T-2", cap_usd="0.1")
        first, moved, elsewhere = [await started(api, ticket_id=ticket) for ticket in ("T-1", "T-1", "T-2")]
        await capped(api, "run", "run", moved, cap_usd="0.05")
        await paid(api, moved, usd="0.06")
        for run in (first, elsewhere):
            await paid(api, run, usd="0.2")
        [asked] = await pending(api, "ticket.T-1.")
        await answer(api, asked, NO)
        await capped(api, "run", "run", moved, cap_usd="9")
        later = await started(api, ticket_id="T-1")
        said = [(await shown(api, run))["reason"] for run in (first, moved, later, elsewhere)]
        assert ["denied to raise it: so" in reason for reason in said] == [True, True, True, False]
        [alert] = [each for each in await standing(api) if each["subject_id"] == "ticket/T-1"]
        await api.post(f"{API}/alerts/{alert['alert_id']}/resolve", json={})
        tried = await paid(api, first, usd="0.01")
        assert "denied to raise it: so" in tried.json()["error"]["message"], "who is held has been answered"
        last = await started(api, ticket_id="T-1")
        [asked] = await pending(api, "ticket.T-1.")
        said = [*asked["reasons"], *[(await shown(api, run))["reason"] for run in (first, moved, later, last)]]
        assert {reason.partition("; ")[2] for reason in said} == {"an admin may raise it"}
        await answer(api, asked)
        assert [(await shown(api, run))["status"] for run in (first, moved, later, last)] == [None] * 4

    async def test_one_that_is_denied_after_its_limit_opened_changes_nothing(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        run, asked = await over_its_limit(api)
        async with being_answered(db, team, asked):
            await capped(api, "run", "run", run, cap_usd="9")
        await answer(api, asked, NO)
        assert (await shown(api, run))["status"] is None
        await paid(api, run, usd="10")
        assert "denied" not in (await shown(api, run))["reason"]

    async def test_one_that_was_denied_is_put_again_once_its_alert_is_resolved(self, api: httpx2.AsyncClient) -> None:
        await capped(api, "ticket", "ticket", "T-1", cap_usd="0.1")
        await paid(api, await started(api, ticket_id="T-1"), usd="0.2")
        [asked] = await pending(api)
        await answer(api, asked, NO)
        await started(api, ticket_id="T-1")
        assert await pending(api) == []
        [alert] = await standing(api)
        await api.post(f"{API}/alerts/{alert['alert_id']}/resolve", json={})
        await started(api, ticket_id="T-1")
        assert len(await pending(api)) == 1

    async def test_an_answer_that_comes_after_the_end_of_its_run_stands_and_changes_nothing(
        self, api: httpx2.AsyncClient, db: Database, team: Team
    ) -> None:
        run, asked = await over_its_limit(api)
        async with being_answered(db, team, asked):
            assert (await api.post(f"{API}/runs/{run}/end", json={"status": "failed"})).status_code == 200
        assert (await answer(api, asked)).status_code == 200
        assert await pending(api) == []
        assert (await shown(api, run))["cap_usd"] == "0.25"
