"""The memory of a workspace: written by scope and policy, proposed to people, found, withdrawn (POL-17, V-19)."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update
from sqlmodel import col

from models.domain.memory import MAX_BODY, MAX_PROPOSED
from models.domain.principals import Kind
from models.store.database import Database
from models.tables.agents import AgentRow
from tests.fixtures.access import make_key
from tests.fixtures.agents import let_in, registered
from tests.fixtures.api import Caller, Team, add_agents
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, refusal, repo
from tests.fixtures.policies import SOURCE, enact

__all__ = ["repo"]
NOTE = {"kind": "playbook_note", "title": "Tax is rounded half up", "body": "See money.py.", "tags": ["tax"]}
WHY = "a test"
DENYING = SOURCE.replace(
    "rules:\n",
    "rules:\n  - {rule: no-notes, because: not here, when: {action: '*write_memory', kind: agent}, deny: true}\n",
    1,
)
ANSWERING = SOURCE.replace("resolve:\n", "resolve:\n  governance: {role: operator, agents: [agent, other]}\n", 1)


async def written(api: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    """Write a note; it as the API shows it."""
    answer = await api.post("/api/v1/memory", json=NOTE | changes)
    assert answer.status_code == 201, answer.text
    note: dict[str, Any] = answer.json()["data"]
    return note


async def listed(api: httpx2.AsyncClient, query: str = "") -> list[str]:
    answer = await api.get(f"/api/v1/memory{query}")
    assert answer.status_code == 200, answer.text
    return [note["memory_id"] for note in answer.json()["data"]["items"]]


async def resolved(api: httpx2.AsyncClient, note: dict[str, Any], answer: str, **headers: str) -> httpx2.Response:
    place = f"/api/v1/decisions/{note['decision_id']}/resolve"
    return await api.post(place, json={"decision": answer, "explanation": WHY}, headers=headers)


async def mission_of(api: httpx2.AsyncClient, repo: Repo, scope: str, **more: Any) -> str:
    """File a mission for the agent, with a scope."""
    given = {"assigned_to": "agent", "trust_requirements": {"memory_write_scope": scope}} | more
    return str((await filed(api, repo, **given))["mission_id"])


async def promote(db: Database, team: Team, level: str) -> None:
    async with db.workspace(team.workspace_id) as session:
        ours = col(AgentRow.workspace_id) == team.workspace_id
        await session.execute(update(AgentRow).where(ours).values(level=level))


async def told(db: Database, team: Team, kind: str) -> list[str]:
    """Types of events about a kind of subject."""
    async with db.workspace(team.workspace_id) as session:
        statement = text("SELECT type FROM event WHERE subject_kind = :kind ORDER BY id")
        found = await session.execute(statement, {"kind": kind})
        return list(found.scalars())


@pytest.fixture
def agent(client: Caller, team: Team) -> httpx2.AsyncClient:
    """The team's agent, an intern."""
    return client(team.agent)


class TestScopeOfAMission:
    async def test_read_only_refuses_and_leaves_nothing(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo, db: Database, team: Team
    ) -> None:
        mission = await mission_of(api, repo, "read_only")
        answer = await agent.post("/api/v1/memory", json=NOTE | {"mission_id": mission})
        assert refusal(answer) == (403, "memory_read_only")
        assert (await told(db, team, "memory"), await told(db, team, "decision")) == ([], [])
        async with db.workspace(team.workspace_id) as session:
            assert (await session.execute(text("SELECT count(*) FROM memory_note"))).scalar_one() == 0

    async def test_persist_keeps(self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await mission_of(api, repo, "persist")
        note = await written(agent, mission_id=mission)
        assert (note["state"], note["decision_id"], note["written_by"]) == ("kept", None, "agent")
        assert await listed(api, f"?mission_id={mission}") == [note["memory_id"]]

    async def test_what_an_agent_filed_lets_it_do_no_more_than_on_its_own(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo
    ) -> None:
        """An intern proposes, whatever its own mission says, also once somebody else has filed it again."""
        await filed(api, repo)  # which registers the repository
        mission = await mission_of(agent, repo, "persist")
        note = await written(agent, mission_id=mission)
        assert (await written(agent))["state"] == note["state"] == "proposed"
        await api.post(f"/api/v1/missions/{mission}/cancel", json={})
        again = (await api.post(f"/api/v1/missions/{mission}/retry", json={})).json()["data"]
        assert (await written(agent, mission_id=again["mission_id"]))["state"] == "proposed"

    async def test_propose_puts_a_question_and_shows_the_note_to_nobody_else(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo, db: Database
    ) -> None:
        await promote(db, team, "lead")
        mission = await mission_of(api, repo, "propose")
        note = await written(agent, mission_id=mission)
        assert note["state"] == "proposed"
        asked = (await api.get(f"/api/v1/decisions/{note['decision_id']}")).json()["data"]
        assert (asked["kind"], asked["status"], asked["mission_id"]) == ("governance", "pending", mission)
        of_it = (await api.get(f"/api/v1/decisions?mission_id={mission}")).json()["data"]["items"]
        assert [(one["decision_id"], one["mission_id"]) for one in of_it] == [(note["decision_id"], mission)]
        assert asked["reasons"] == ["the mission's memory_write_scope is propose"]
        assert asked["binding"] == {"memory_id": note["memory_id"], "digest": note["digest"]}
        assert asked["question"]["mission_id"] == mission
        assert asked["terms"]["requesters"] == ["agent"]
        assert asked["expires_at"]
        place = asked["links"]["memory"]
        for key, status in [(team.agent, 200), (team.operator, 200), (team.member, 404), (team.observer, 404)]:
            assert (await client(key).get(place)).status_code == status
            assert await listed(client(key)) == []
            assert await listed(client(key), "?state=proposed") == ([note["memory_id"]] if status == 200 else [])
        assert "See money.py." not in str(asked)

    async def test_agents_write_only_for_missions_of_their_own(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo
    ) -> None:
        for other in ("operator", None):
            mission = await mission_of(api, repo, "persist", assigned_to=other)
            answer = await agent.post("/api/v1/memory", json=NOTE | {"mission_id": mission})
            assert refusal(answer) == (403, "not_assigned")
        trust = {"trust_requirements": {"required_trust_score": 0.99}}
        mission = await mission_of(api, repo, "persist", **trust)
        answer = await agent.post("/api/v1/memory", json=NOTE | {"mission_id": mission})
        assert refusal(answer) == (403, "trust_too_low")
        answer = await agent.post("/api/v1/memory", json=NOTE | {"mission_id": "mission_20250110_999"})
        assert refusal(answer) == (404, "mission_not_found")

    async def test_people_and_services_write_for_any(
        self, api: httpx2.AsyncClient, client: Caller, team: Team, repo: Repo
    ) -> None:
        mission = await mission_of(api, repo, "read_only")
        for key in (team.member, team.operator, team.service):
            assert (await written(client(key), mission_id=mission))["state"] == "kept"
        assert (await client(team.observer).post("/api/v1/memory", json=NOTE)).status_code == 403


class TestByPolicy:
    @pytest.mark.parametrize(("level", "state"), [("intern", "proposed"), ("specialist", "kept"), ("lead", "kept")])
    async def test_without_a_mission_an_agent_s_level_decides(
        self, agent: httpx2.AsyncClient, db: Database, team: Team, level: str, state: str
    ) -> None:
        await promote(db, team, level)
        note = await written(agent)
        assert note["state"] == state
        async with db.workspace(team.workspace_id) as session:
            found = await session.execute(text("SELECT verdict_id, action, outcome FROM verdict"))
            verdict = (f"{note['memory_id']}.write", "write_memory", "ask" if state == "proposed" else "allow")
            assert [tuple(row) for row in found] == [verdict]

    async def test_what_the_policy_denies_no_scope_allows(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission = await mission_of(api, repo, "persist")
        await enact(api, DENYING)
        for more in ({}, {"mission_id": mission}):
            answer = await agent.post("/api/v1/memory", json=NOTE | more)
            assert refusal(answer) == (403, "policy_denies")
            assert "not here" in answer.json()["error"]["message"]
        verdicts = (await api.get("/api/v1/policy/verdicts?outcome=deny")).json()["data"]["items"]
        assert {verdict["action"] for verdict in verdicts} == {"write_memory", "mission.write_memory"}


class TestAnswer:
    @pytest.mark.parametrize(("answer", "state"), [("approve", "kept"), ("deny", "refused")])
    async def test_it_is_done_once(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, db: Database, team: Team, answer: str, state: str
    ) -> None:
        note = await written(agent)
        same = {"Idempotency-Key": "k"}
        first, again = [await resolved(api, note, answer, **same) for _ in range(2)]
        assert (first.status_code, again.json(), again.headers["idempotency-replayed"]) == (200, first.json(), "true")
        assert first.json()["data"]["acknowledged_at"]
        assert refusal(await resolved(api, note, "approve")) == (409, "already_resolved")
        now = (await agent.get(f"/api/v1/memory/{note['memory_id']}")).json()["data"]
        assert (now["state"], now["changed_by"], now["body"]) == (state, "admin", NOTE["body"])
        assert await told(db, team, "memory") == ["memory.proposed", f"memory.{state}"]
        assert await listed(agent) == ([note["memory_id"]] if state == "kept" else [])

    async def test_of_many_at_once_one_counts(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        note = await written(agent)
        callers = (client(team.admin), client(team.operator), client(team.admin))
        answers = [resolved(by, note, word) for by, word in zip(callers, ("approve", "deny", "approve"), strict=True)]
        withdrawing = api.delete(f"/api/v1/memory/{note['memory_id']}")
        *given, withdrawn = await asyncio.gather(*answers, withdrawing)
        assert sum(answer.status_code == 200 for answer in given) <= 1
        state = (await api.get(f"/api/v1/memory/{note['memory_id']}")).json()["data"]["state"]
        assert state == ("withdrawn" if withdrawn.status_code == 200 else "refused")
        ends = await told(db, team, "memory")
        assert len(ends) == len(set(ends)), "nothing is told twice"

    async def test_who_may_not(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        note = await written(agent)
        assert refusal(await resolved(agent, note, "approve")) == (403, "not_permitted")
        assert refusal(await resolved(client(team.member), note, "approve")) == (403, "not_permitted")
        assert (await api.get(f"/api/v1/memory/{note['memory_id']}")).json()["data"]["state"] == "proposed"

    async def test_four_eyes(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        async with db.system() as session:
            other = client(await make_key(session, team.workspace_id, "other", kind=Kind.AGENT))
            await add_agents(session, team.workspace_id, "other")
        await enact(api, ANSWERING)
        note = await written(agent)
        for word in ("approve", "deny"):
            assert refusal(await resolved(agent, note, word)) == (403, "own_decision")
        assert (await agent.get(f"/api/v1/memory/{note['memory_id']}")).json()["data"]["state"] == "proposed"
        assert (await resolved(other, note, "approve")).json()["data"]["resolved_by"] == "other"

    async def test_nor_that_of_an_agent_which_it_brought_in(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, client: Caller, team: Team
    ) -> None:
        """It has the registration's token, and may hold the key."""
        first = await registered(agent, team, name="hand")
        _, hand = await let_in(api, client, first)
        second = await registered(hand, team, name="finger")
        _, finger = await let_in(api, client, second)
        await enact(api, ANSWERING.replace("agents: [agent, other]", "agents: [agent, hand, finger]"))
        for writer, answering in [(hand, agent), (finger, agent), (agent, finger), (hand, finger)]:
            note = await written(writer, title=f"note of {id(writer)} for {id(answering)}")
            assert refusal(await resolved(answering, note, "approve")) == (403, "own_decision")

    async def test_so_many_of_a_writer_wait_and_no_more(
        self, agent: httpx2.AsyncClient, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        note = await written(agent)
        copies = text(
            "INSERT INTO memory_note"
            " (workspace_id, memory_id, kind, title, body, digest, state, decision_id, written_by)"
            " SELECT workspace_id, memory_id || n, kind, title, body, digest, state, decision_id, written_by"
            " FROM memory_note, generate_series(2, :most) n"
        )
        async with db.workspace(team.workspace_id) as session:
            await session.execute(copies, {"most": MAX_PROPOSED})
        same = {"Idempotency-Key": "k"}
        for _ in range(2):
            refused = await agent.post("/api/v1/memory", json=NOTE, headers=same)
            assert refusal(refused) == (409, "too_many_proposed")
        verdicts = (await api.get("/api/v1/policy/verdicts?action=write_memory")).json()["data"]["items"]
        assert len(verdicts) == 2, "that of the note, and that of the refused one, once"
        assert await told(db, team, "memory") == ["memory.proposed"]
        async with db.system() as session:
            other = await make_key(session, team.workspace_id, "other", kind=Kind.AGENT)
            await add_agents(session, team.workspace_id, "other")
        assert (await written(client(other)))["state"] == "proposed", "others have room of their own"
        await resolved(api, note, "deny")
        assert (await written(agent))["state"] == "proposed"


class TestWithdraw:
    async def test_a_kept_note_counts_no_more(
        self, api: httpx2.AsyncClient, client: Caller, db: Database, team: Team
    ) -> None:
        note = await written(client(team.member))
        place = f"/api/v1/memory/{note['memory_id']}"
        assert refusal(await client(team.member).delete(place)) == (403, "not_permitted")
        gone = (await client(team.operator).delete(place)).json()["data"]
        assert (gone["state"], gone["changed_by"]) == ("withdrawn", "operator")
        assert (await client(team.operator).delete(place)).json()["data"] == gone
        assert (await listed(api), await listed(api, "?state=withdrawn")) == ([], [note["memory_id"]])
        assert (await client(team.observer).get(place)).status_code == 404
        async with db.workspace(team.workspace_id) as session:
            rows = await session.execute(
                text("SELECT action, actor FROM audit WHERE subject_id = :id ORDER BY id"), {"id": note["memory_id"]}
            )
            assert [tuple(row) for row in rows] == [("memory.kept", "member"), ("memory.withdrawn", "operator")]

    async def test_with_a_proposed_one_goes_its_question(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient
    ) -> None:
        note = await written(agent)
        await api.delete(f"/api/v1/memory/{note['memory_id']}")
        asked = (await api.get(f"/api/v1/decisions/{note['decision_id']}")).json()["data"]
        assert asked["status"] == "canceled"
        assert refusal(await resolved(api, note, "approve")) == (409, "decision_canceled")

    async def test_a_refused_one_stays_refused(self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient) -> None:
        note = await written(agent)
        await resolved(api, note, "deny")
        assert refusal(await api.delete(f"/api/v1/memory/{note['memory_id']}")) == (409, "illegal_transition")


class TestFind:
    async def test_by_what_it_is_and_says(self, api: httpx2.AsyncClient, repo: Repo) -> None:
        mission = await mission_of(api, repo, "persist")
        tax = await written(api, mission_id=mission)
        code = await written(api, kind="code_fragment", title="half_up", body="x % 100_%", tags=["py", "tax", "py"])
        both = [code["memory_id"], tax["memory_id"]]
        assert code["tags"] == ["py", "tax"]
        expected = {
            "": both,
            "?kind=code_fragment": both[:1],
            "?tag=py": both[:1],
            "?tag=tax": both,
            "?tag=t": [],
            f"?mission_id={mission}": both[1:],
            "?text=HALF": both,
            f"?text={'half ' * 10}": both,
            "?text=half rounded": both[1:],
            "?text=money.py see": both[1:],
            "?text=100_%25": both[:1],
            "?text=%25half": [],
            "?sort=created_at": both[::-1],
        }
        assert {query: await listed(api, query) for query in expected} == expected
        shown = (await api.get("/api/v1/memory")).json()["data"]["items"][0]
        assert shown == {name: value for name, value in code.items() if name != "body"}

    async def test_page_by_page(self, api: httpx2.AsyncClient) -> None:
        made = [(await written(api, title=f"note {number}"))["memory_id"] for number in range(5)]
        found: list[str] = []
        cursor = ""
        while True:
            page = (await api.get(f"/api/v1/memory?limit=2{cursor}")).json()["data"]
            found += [note["memory_id"] for note in page["items"]]
            if not page["next_cursor"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert found == made[::-1]


class TestBadInput:
    @pytest.mark.parametrize(
        "changes",
        [
            {"kind": "secret"},
            {"title": ""},
            {"title": "t" * 257},
            {"body": ""},
            {"body": None},
            {"body": "b" * (MAX_BODY + 1)},
            {"body": "nul \x00"},
            {"tags": ["Two Words"]},
            {"tags": [""]},
            {"tags": ["t"] * 21},
            {"state": "kept"},
            {"mission_id": ""},
        ],
    )
    async def test_is_refused(self, api: httpx2.AsyncClient, changes: dict[str, Any]) -> None:
        assert (await api.post("/api/v1/memory", json=NOTE | changes)).status_code == 422
        assert await listed(api) == []

    @pytest.mark.parametrize("query", ["state=lost", "kind=x", "text=" + "x" * 201, "author=me"])
    async def test_of_a_list(self, api: httpx2.AsyncClient, query: str) -> None:
        assert (await api.get(f"/api/v1/memory?{query}")).status_code == 422

    async def test_the_longest_there_may_be(self, api: httpx2.AsyncClient) -> None:
        note = await written(api, body="\N{GRINNING FACE}" * MAX_BODY)
        assert len((await api.get(f"/api/v1/memory/{note['memory_id']}")).json()["data"]["body"]) == MAX_BODY

    async def test_unknown_is_404(self, api: httpx2.AsyncClient) -> None:
        assert refusal(await api.get("/api/v1/memory/lost")) == (404, "memory_not_found")
        assert refusal(await api.delete("/api/v1/memory/lost")) == (404, "memory_not_found")

    async def test_a_repetition_writes_once(self, agent: httpx2.AsyncClient, db: Database, team: Team) -> None:
        same = {"Idempotency-Key": "k"}
        first, again = [await agent.post("/api/v1/memory", json=NOTE, headers=same) for _ in range(2)]
        assert (first.status_code, again.json(), again.headers["idempotency-replayed"]) == (201, first.json(), "true")
        assert await told(db, team, "memory") == ["memory.proposed"]
        assert await told(db, team, "decision") == ["decision.requested"]
        async with db.workspace(team.workspace_id) as session:
            verdicts = (await session.execute(text("SELECT verdict_id FROM verdict"))).scalars().all()
        assert verdicts == [f"{first.json()['data']['memory_id']}.write"]

    async def test_of_one_that_is_refused_is_judged_once(
        self, api: httpx2.AsyncClient, agent: httpx2.AsyncClient, repo: Repo
    ) -> None:
        mission, same = await mission_of(api, repo, "read_only"), {"Idempotency-Key": "k"}
        note = NOTE | {"mission_id": mission}
        answers = [await agent.post("/api/v1/memory", json=note, headers=same) for _ in range(2)]
        assert [refusal(answer) for answer in answers] == [(403, "memory_read_only")] * 2
        query = f"/api/v1/policy/verdicts?action=mission.write_memory&mission_id={mission}"
        [_] = (await api.get(query)).json()["data"]["items"]


async def test_an_agent_sees_its_own_proposals_only(
    agent: httpx2.AsyncClient, client: Caller, db: Database, team: Team
) -> None:
    async with db.system() as session:
        await add_agents(session, team.workspace_id, "second")
        secret = await make_key(session, team.workspace_id, "second", kind=Kind.AGENT)
    mine, other = await written(agent), await written(client(secret))
    assert await listed(agent, "?state=proposed") == [mine["memory_id"]]
    assert await listed(client(secret), "?state=proposed") == [other["memory_id"]]
    assert (await agent.get(f"/api/v1/memory/{other['memory_id']}")).status_code == 404
