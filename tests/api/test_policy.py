"""The policy over HTTP: its versions, what it says, and what another would have said."""

import asyncio
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.routes import policy
from models.domain.policy import Context
from models.settings import Settings
from models.store.database import Database
from tests.fixtures.api import Caller, Team, make_app, running
from tests.fixtures.missions import refusal
from tests.fixtures.policies import SOURCE, judged, whole

PATH = "/api/v1/policy"
STRICT = SOURCE.replace("rules:\n", "rules:\n  - rule: freeze\n    because: nothing moves\n    deny: true\n", 1)


async def events(db: Database, team: Team) -> list[tuple[str, str, Any]]:
    """What was told about policies: type, actor, data."""
    async with db.workspace(team.workspace_id) as session:
        statement = text("SELECT type, actor, data FROM event WHERE type LIKE 'policy.%' ORDER BY epoch, xid, id")
        return [(row.type, row.actor, row.data) for row in await session.execute(statement)]


async def made(api: httpx2.AsyncClient, source: str = STRICT, note: str = "") -> int:
    answer = await api.post(f"{PATH}/versions", json={"source": source, "note": note})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["data"]["version"])


async def in_force(api: httpx2.AsyncClient) -> int:
    return int((await api.get(PATH)).json()["data"]["version"])


class TestVersions:
    async def test_a_workspace_begins_with_the_first(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        found = (await api.get(PATH)).json()["data"]
        assert (found["version"], found["source"], found["created_by"]) == (1, SOURCE, "first-start")
        assert (await api.get(f"{PATH}/versions/1")).json()["data"] == found
        [(kind, actor, data)] = await events(db, team)
        assert (kind, actor, data["version"]) == ("policy.activated", "first-start", 1)

    async def test_a_new_one_is_kept_and_changes_nothing(self, api: httpx2.AsyncClient) -> None:
        assert await made(api, note="freeze") == 2
        assert await in_force(api) == 1
        items = (await api.get(f"{PATH}/versions")).json()["data"]["items"]
        assert [(item["version"], item["note"]) for item in items] == [(2, "freeze"), (1, "")]
        assert (await api.get(f"{PATH}/versions/2")).json()["data"]["source"] == STRICT

    async def test_it_is_activated_and_told_once(self, api: httpx2.AsyncClient, db: Database, team: Team) -> None:
        version = await made(api)
        for _ in range(2):
            assert (await api.post(f"{PATH}/versions/{version}/activate")).status_code == 200
        assert await in_force(api) == version
        told = [(kind, actor, data["version"]) for kind, actor, data in await events(db, team)]
        assert told[1:] == [("policy.version_created", "admin", 2), ("policy.activated", "admin", 2)]

    async def test_an_older_one_can_be_put_back(self, api: httpx2.AsyncClient) -> None:
        await api.post(f"{PATH}/versions/{await made(api)}/activate")
        assert (await api.post(f"{PATH}/versions/1/activate")).status_code == 200
        assert await in_force(api) == 1

    async def test_a_broken_one_is_refused_with_its_line(self, api: httpx2.AsyncClient) -> None:
        broken = SOURCE.replace("risk: RED", "risk: PINK", 1)
        answer = await api.post(f"{PATH}/versions", json={"source": broken})
        assert refusal(answer) == (422, "policy_invalid")
        line = next(number for number, row in enumerate(broken.splitlines(), 1) if "PINK" in row)
        assert f"line {line}: " in answer.json()["error"]["message"]
        assert answer.json()["error"]["details"]["line"] == line
        assert len((await api.get(f"{PATH}/versions")).json()["data"]["items"]) == 1

    @pytest.mark.parametrize("source", ["", "\n", "null", "---", "# x", "{}", STRICT.partition("\nresolve:")[0]])
    async def test_one_that_lost_a_part_is_refused_at_each_door(self, api: httpx2.AsyncClient, source: str) -> None:
        for door in ("versions", "try"):
            answer = await api.post(f"{PATH}/{door}", json={"source": source})
            assert refusal(answer) == (422, "policy_invalid")
            assert "may be cut off: begin with what `policy show` prints" in answer.json()["error"]["message"]
        assert len((await api.get(f"{PATH}/versions")).json()["data"]["items"]) == 1

    async def test_activation_says_what_is_dropped(self, api: httpx2.AsyncClient) -> None:
        first = (await api.get(PATH)).json()["data"]
        bare = await made(api, whole(""))
        found = (await api.post(f"{PATH}/versions/{bare}/activate")).json()["data"]
        assert found["size"] == {"actions": 0, "secret_paths": 0, "rules": 0, "resolve": 1}
        assert (found["version"], found["before"], found["before_size"]) == (bare, 1, first["size"])
        assert (first["size"]["rules"], first["size"]["resolve"]) == (SOURCE.count("- rule:"), 5)
        back = (await api.post(f"{PATH}/versions/1/activate")).json()["data"]
        assert (back["before"], back["before_size"], back["size"]) == (bare, found["size"], first["size"])

    async def test_a_misspelled_fact_is_refused_at_each_door(self, api: httpx2.AsyncClient) -> None:
        misspelled = {"source": SOURCE.replace("fact: ci_files", "fact: ci_filez", 1)}
        for door in ("versions", "try"):
            answer = await api.post(f"{PATH}/{door}", json=misspelled)
            assert refusal(answer) == (422, "policy_invalid")
            assert "`ci_files`?" in answer.json()["error"]["message"]

    async def test_unknown_is_404(self, api: httpx2.AsyncClient) -> None:
        for answer in (await api.get(f"{PATH}/versions/7"), await api.post(f"{PATH}/versions/7/activate")):
            assert refusal(answer) == (404, "policy_version_not_found")

    async def test_only_admins_change_it(self, client: Caller, team: Team) -> None:
        for key in (team.operator, team.observer, team.agent, team.service):
            assert (await client(key).post(f"{PATH}/versions", json={"source": SOURCE})).status_code == 403
            assert (await client(key).post(f"{PATH}/versions/1/activate")).status_code == 403
        assert (await client(team.observer).get(PATH)).status_code == 200

    async def test_the_status_s_configuration_hash_knows_it(self, api: httpx2.AsyncClient) -> None:
        async def shown() -> str:
            return str((await api.get("/api/v1/status")).json()["data"]["config_hash"])

        await in_force(api)
        before = await shown()
        await api.post(f"{PATH}/versions/{await made(api)}/activate")
        assert await shown() != before


class TestExplain:
    async def test_says_why(self, client: Caller, team: Team) -> None:
        body = {"action": "shell", "as": {"kind": "agent", "level": "intern"}, "paths": ["a/.env"]}
        found = (await client(team.observer).post(f"{PATH}/explain", json=body)).json()["data"]
        assert (found["outcome"], found["risk"], found["policy_version"]) == ("ask", "RED", 1)
        assert found["rules"] == ["secrets", "interns-ask"]
        assert found["ask"] == {"role": "operator", "people": 1, "four_eyes": "unless_alone"}

    async def test_it_happens_where_the_installation_is(self, settings: Settings, team: Team) -> None:
        application = make_app(settings.model_copy(update={"env": "prod"}))
        body = {"action": "shell", "as": {"kind": "agent", "level": "specialist"}}
        key, transport = {"X-API-Key": team.admin}, httpx2.ASGITransport(application)
        caller = httpx2.AsyncClient(transport=transport, base_url="http://test", headers=key)
        async with running(application), caller as api:
            for named, risk in (({}, "RED"), ({"env": "dev"}, "YELLOW")):
                found = (await api.post(f"{PATH}/explain", json=body | named)).json()["data"]
                assert found["risk"] == risk

    @pytest.mark.parametrize(
        "change",
        [
            {"as": {"kind": "agent", "level": "boss"}},
            {"as": {"kind": "king"}},
            {"usd": -1},
            {"usd": "1" * 30},
            {"usd": "NaN"},
            {"action": ""},
            {"environment": "dev"},
        ],
    )
    async def test_bad_input(self, api: httpx2.AsyncClient, change: dict[str, Any]) -> None:
        body = {"action": "shell", "as": {"kind": "human"}} | change
        assert (await api.post(f"{PATH}/explain", json=body)).status_code == 422

    async def test_money(self, api: httpx2.AsyncClient) -> None:
        body = {"action": "shell", "as": {"kind": "human"}, "usd": "0.3", "usd_left": 0.25}
        assert (await api.post(f"{PATH}/explain", json=body)).json()["data"]["rules"] == ["over-budget"]


@pytest.fixture
async def past(db: Database, team: Team) -> None:
    """Three merges that were judged by the first policy."""
    await judged(db, team.workspace_id, Context(), Context(protected=True), Context(paths=("a.py",)))


class TestVerdicts:
    async def test_each_shows_version_and_input(self, client: Caller, team: Team, past: None) -> None:
        api = client(team.observer)
        found = (await api.get(f"{PATH}/verdicts?outcome=ask")).json()["data"]["items"]
        assert [(one["verdict_id"], one["risk"], one["policy_version"]) for one in found] == [("merge-1", "RED", 1)]
        assert found[0]["rules"] == ["protected-branch"]
        assert found[0]["input"]["context"]["protected"] is True
        assert len((await api.get(f"{PATH}/verdicts")).json()["data"]["items"]) == 3

    async def test_another_workspace_has_its_own(self, client: Caller, other_team: Team, past: None) -> None:
        assert (await client(other_team.admin).get(f"{PATH}/verdicts")).json()["data"]["items"] == []


class TestTry:
    async def test_shows_what_would_have_changed(self, api: httpx2.AsyncClient, past: None) -> None:
        found = (await api.post(f"{PATH}/try", json={"source": STRICT})).json()["data"]
        assert (found["judged"], found["changed"]) == (3, 3)
        operator = {"role": "operator", "people": 1, "four_eyes": "unless_alone"}
        assert found["changes"] == [
            {"risk": ["YELLOW", "YELLOW"], "outcome": ["allow", "deny"], "ask": [None, None], "count": 2},
            {"risk": ["RED", "RED"], "outcome": ["ask", "deny"], "ask": [operator, None], "count": 1},
        ]
        one = next(example for example in found["examples"] if example["verdict_id"] == "merge-1")
        assert (one["before"]["rules"], one["after"]["rules"]) == (["protected-branch"], ["freeze", "protected-branch"])
        assert await in_force(api) == 1

    async def test_who_would_have_been_asked_is_a_change(self, api: httpx2.AsyncClient, past: None) -> None:
        """The quorum of one rule, and nothing else."""
        source = SOURCE.replace("    risk: RED\n    ask: {role: operator}", "    risk: RED\n    ask: {people: 2}", 1)
        found = (await api.post(f"{PATH}/try", json={"source": source})).json()["data"]
        assert (found["changed"], found["changes"][0]["outcome"]) == (1, ["ask", "ask"])
        assert [ask["people"] for ask in found["examples"][0]["ask"]] == [1, 2]

    async def test_who_may_answer_at_all_is_a_change(self, api: httpx2.AsyncClient, past: None) -> None:
        source = SOURCE.replace('"*": {role: operator}', '"*": {role: admin}')
        found = (await api.post(f"{PATH}/try", json={"source": source})).json()["data"]
        assert [ask["role"] for ask in found["examples"][0]["ask"]] == ["operator", "admin"]
        assert found["changed"] == 1

    async def test_the_same_policy_changes_nothing(self, api: httpx2.AsyncClient, past: None) -> None:
        found = (await api.post(f"{PATH}/try", json={"version": 1})).json()["data"]
        assert (found["judged"], found["changed"], found["examples"]) == (3, 0, [])

    async def test_rules_times_acts_are_bounded(self, api: httpx2.AsyncClient, past: None) -> None:
        rule = "  - {{rule: r{}, because: b, when: {{action: never}}, deny: true}}\n"
        body = {"source": whole("rules:\n" + "".join(rule.format(n) for n in range(1_000)))}
        assert (await api.post(f"{PATH}/try", json=body)).json()["data"]["judged"] == 3
        refused = await api.post(f"{PATH}/try", json=body | {"limit": 1_001})
        assert refusal(refused) == (422, "too_many_to_try")
        assert "a `limit` of at most 1000" in refused.text

    async def test_so_are_those_of_the_versions_that_judged(
        self, api: httpx2.AsyncClient, past: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = whole("rules:\n  - {rule: r, because: b, when: {action: never}, deny: true}\n")
        one = {"source": source, "limit": 3}
        assert (await api.post(f"{PATH}/try", json=one)).status_code == 200
        monkeypatch.setattr(policy, "MAX_COMPARED", 3)
        refused = await api.post(f"{PATH}/try", json=one)
        assert refusal(refused) == (422, "too_many_to_try")
        assert "in version 1, by which some of them were judged," in refused.text

    async def test_their_text_is_bounded(
        self, api: httpx2.AsyncClient, past: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(policy, "MAX_TEXT", len(SOURCE) - 1)
        refused = await api.post(f"{PATH}/try", json={"version": 1})
        assert refusal(refused) == (422, "too_many_to_try")
        assert "were judged by 1 long versions" in refused.text

    async def test_only_the_newest(self, api: httpx2.AsyncClient, past: None) -> None:
        assert (await api.post(f"{PATH}/try", json={"source": STRICT, "limit": 1})).json()["data"]["judged"] == 1

    @pytest.mark.parametrize("body", [{}, {"source": "a: b", "version": 1}, {"source": "rules: 3"}, {"version": 0}])
    async def test_bad_input(self, api: httpx2.AsyncClient, body: dict[str, Any]) -> None:
        assert (await api.post(f"{PATH}/try", json=body)).status_code == 422


async def longest_gap(api: httpx2.AsyncClient, path: str, body: dict[str, Any] | None) -> float:
    """Ask, and find for which share of the time the loop served nobody else."""
    begun, gaps = time.monotonic(), [0.0]
    asked = asyncio.ensure_future(api.request("POST" if body else "GET", f"{PATH}{path}", json=body))
    while not asked.done():
        before = time.monotonic()
        await asyncio.sleep(0)
        gaps.append(time.monotonic() - before)
    assert (await asked).is_success, (await asked).text
    return max(gaps) / (time.monotonic() - begun)


async def test_a_long_judgement_holds_up_nobody(api: httpx2.AsyncClient) -> None:
    source = "secret_paths:\n" + "".join(f"  - '{'*a' * 20}{number}'\n" for number in range(47))
    await api.post(f"{PATH}/versions/{await made(api, whole(source))}/activate")
    body = {"action": "read", "as": {"name": "olga"}, "paths": ["a" * 1000] * 200}
    shares = [await longest_gap(api, "/explain", body) for _ in range(5)]  # the machine may stop us, but not each time
    assert min(shares) < 0.5, "the loop stood still while the act was judged"
    answers = await asyncio.gather(*(api.post(f"{PATH}/explain", json=body) for _ in range(10)))
    codes = {answer.json().get("error", {}).get("code") for answer in answers}
    assert codes == {None, "one_at_a_time"}


async def test_reading_a_long_policy_holds_up_nobody(api: httpx2.AsyncClient) -> None:
    """It is read when it is made, and once more when it was put in force."""
    rule = "  - {{rule: r{}, because: b, when: {{action: never}}, deny: true}}\n"
    source = whole("rules:\n" + "".join(rule.format(n) for n in range(1_000)))
    making, reading = [], []
    for _ in range(3):  # the machine may stop us for a moment, but not each time
        making.append(await longest_gap(api, "/versions", {"source": source}))
        newest = (await api.get(f"{PATH}/versions?limit=1")).json()["data"]["items"][0]["version"]
        await api.post(f"{PATH}/versions/{newest}/activate")
        reading.append(await longest_gap(api, "", None))
    assert min(making) < 0.5, "the loop stood still while the text was checked"
    assert min(reading) < 0.5, "the loop stood still while the version in force was read"
