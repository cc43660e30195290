"""Amounts and explanations that make no sense: refused with the field's name, and nothing is kept of them."""

import re
from itertools import product
from typing import Any

import httpx2
import pytest

from activities.workbench.signing import ServiceKey
from models.store.database import Database
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import repo
from tests.fixtures.one_of_each import one_of_each
from tests.fixtures.policies import SOURCE
from tests.fixtures.stages import service_key

__all__ = ["repo", "service_key"]

LIMIT = '{"scope": "run", "owner": "level", "name": "lead", "cap_usd": "1", "cap_tokens": 1, '
ACT = '{"action": "mission.merge", "as": {"kind": "service"}, '
AMOUNTS = {
    ("PUT", "/budgets", LIMIT): ("cap_usd", "cap_tokens"),
    ("PATCH", "/budgets", LIMIT): ("cap_usd", "cap_tokens"),
    ("POST", "/runs/{run_id}/costs", "{"): ("usd", "tokens_in", "tokens_out", "calls"),
    ("POST", "/runs/{run_id}/reservations", "{"): ("usd", "tokens_in", "tokens_out", "calls", "hold_seconds"),
    ("POST", "/runs/{run_id}/reservations/{cost_id}/settle", "{"): ("usd", "tokens_in", "tokens_out", "calls"),
    ("POST", "/runs/{run_id}/adjustments", '{"reason": "x", '): ("usd",),
    ("POST", "/policy/explain", ACT): ("usd", "usd_left"),
    ("POST", "/keys", '{"principal": "olga", "role": "observer", '): ("expires_in_days", "rate_per_minute"),
    ("POST", "/keys/{key_id}/rotate", "{"): ("grace_hours",),
}
"""Where an amount comes in: a route, the beginning of a good body, and its fields."""
NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", '"NaN"', '"Infinity"', '"-inf"', '"much"')
DIGITS = "123456789012345678901234567890"
THIRTY_DIGITS = (DIGITS, f'"{DIGITS}"', f'"0.{DIGITS}"')
NOT_PLAIN = ("true", '"1_000"', '"1e3"', '" 1"', '"\uff11\uff12"', '"1,5"', '"."', '""')
NEGATIVE = ("-1", '"-1"', '"-0.000000001"')
MAY_BE_NEGATIVE = {"/runs/{run_id}/adjustments": "usd", "/policy/explain": "usd_left"}

EXPLANATIONS = {
    ("POST", "/decisions/{decision_id}/resolve", "explanation"): {"decision": "approve"},
    ("POST", "/agents/{agent}/approve", "explanation"): {},
    ("POST", "/agents/{agent}/reject", "explanation"): {},
    ("POST", "/audit/{row_id}/redact", "reason"): {},
    ("POST", "/policy/versions", "note"): {"source": SOURCE},
    ("PATCH", "/workspaces/{workspace_id}", "mission_statement"): {},
}


@pytest.fixture
async def ids(api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo, service_key: ServiceKey) -> dict[str, str]:
    """One of everything."""
    return (await one_of_each(api, team, db, repo, service_key)).ids


async def kept(db: Database, team: Team) -> list[dict[str, Any]]:
    """How much there is: every act is an event, and each payment a row of the ledger."""
    counts = "SELECT (SELECT count(*) FROM event) AS events, (SELECT count(*) FROM ledger) AS paid"
    return await db.alone(team.workspace_id, counts, {})


async def refused(api: httpx2.AsyncClient, method: str, path: str, body: str, field: str) -> None:
    """Send what must be refused, with the name of the field or of the number that is none."""
    headers = {"Content-Type": "application/json"}
    answer = await api.request(method, f"/api/v1{path}", content=body.encode(), headers=headers)
    assert answer.status_code == 422, (path, body[-100:], answer.text)
    error = answer.json()["error"]
    assert error["code"] in ("invalid_input", "malformed_json"), (path, body[-100:], error)
    told = (field, "is no number in JSON", "larger than any number")
    assert any(words in error["message"] for words in told), (path, body[-100:], error)


@pytest.mark.parametrize("field", ["tokens_in", "tokens_out"])
async def test_one_call_cannot_fill_a_counter_of_tokens(
    api: httpx2.AsyncClient, ids: dict[str, str], team: Team, db: Database, field: str
) -> None:
    before = await kept(db, team)
    for (method, path, begun), fields in AMOUNTS.items():
        if field in fields:
            body = f'{begun}"usd": 0, "{field}": {10**9 + 1}}}'
            await refused(api, method, path.format(**ids), body, field)
    assert await kept(db, team) == before
    run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
    most = await api.post(f"/api/v1/runs/{run}/reservations", json={"usd": "0", field: 10**9})
    assert most.status_code == 201, most.text
    cap = {"scope": "run", "owner": "run", "name": run, "cap_usd": None, "cap_tokens": 10**15}
    assert (await api.put("/api/v1/budgets", json=cap)).json()["data"]["cap_tokens"] == 10**15


@pytest.mark.parametrize("what", ["no numbers", "too many digits", "negative ones", "not plain"])
async def test_amounts(api: httpx2.AsyncClient, ids: dict[str, str], team: Team, db: Database, what: str) -> None:
    values = {
        "no numbers": NO_NUMBERS,
        "too many digits": THIRTY_DIGITS,
        "negative ones": NEGATIVE,
        "not plain": NOT_PLAIN,
    }[what]
    before = await kept(db, team)
    for (method, path, begun), fields in AMOUNTS.items():
        for field in fields:
            if what == "negative ones" and MAY_BE_NEGATIVE.get(path) == field:
                continue
            if what == "not plain" and "usd" not in field:
                continue
            for value in values:
                body = f'{begun}"{field}": {value}}}'.replace(f'"{field}": 1, ', "").replace(f'"{field}": "1", ', "")
                await refused(api, method, path.format(**ids), body, field)
    assert await kept(db, team) == before


@pytest.mark.parametrize("nothing", ["0", "-0.0", 0])
async def test_a_correction_by_nothing_is_none(
    api: httpx2.AsyncClient, team: Team, db: Database, nothing: object
) -> None:
    run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
    before = await kept(db, team)
    answer = await api.post(f"/api/v1/runs/{run}/adjustments", json={"usd": nothing, "reason": "x"})
    assert (answer.status_code, "body.usd: 0 corrects nothing" in answer.text) == (422, True), answer.text
    assert await kept(db, team) == before


SURPLUS = (
    "1.5000000000",
    "0.1000000000000000",
    "2.0000000000",
    "3.00000000100000000000",
    "0.0000000000",
    "0." + "0" * 40,
)
"""Zeros behind the ninth decimal, as multiplied decimals and `toFixed(10)` have them."""


async def test_surplus_zeros_are_left_out(api: httpx2.AsyncClient, ids: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json"}
    named = [(route, field) for route, fields in AMOUNTS.items() for field in fields if "usd" in field]
    for ((method, path, begun), field), amount in product(named, SURPLUS):
        if float(amount) == 0 and "adjustments" in path:
            continue
        run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
        await api.post(f"/api/v1/runs/{run}/reservations", json={"usd": "0.1"}, headers={"Idempotency-Key": run})
        place = path.format(**ids | {"run_id": run, "cost_id": run})
        body = f'{begun}"{field}": "{amount}"}}'.replace(f'"{field}": "1", ', "").replace("lead", "specialist")
        answer = await api.request(method, f"/api/v1{place}", content=body.encode(), headers=headers)
        over = answer.status_code == 409 and answer.json()["error"]["code"] == "budget_exceeded"
        assert over or answer.status_code in (200, 201), (path, field, amount, answer.text)
        shown = re.findall(r'usd":"([^"]*)"', answer.text)
        assert all(len(text.partition(".")[2]) <= 9 for text in shown), answer.text


async def test_surplus_zeros_that_are_kept_are_not_shown(
    api: httpx2.AsyncClient, ids: dict[str, str], team: Team, db: Database
) -> None:
    caps = {"daily_cap_usd": "4.0000000000", "run_cap_usd": "0.25000000000000"}
    answer = (await api.patch(f"/api/v1/agents/{ids['agent']}", json=caps)).json()["data"]
    assert (answer["daily_cap_usd"], answer["run_cap_usd"]) == ("4.000000000", "0.250000000")
    old = "UPDATE budget_limit SET cap_usd = 1.50000000000000 WHERE owner = 'agent' RETURNING 1"
    await db.alone(team.workspace_id, old, {})
    shown = (await api.get("/api/v1/budgets")).json()["data"]["items"]
    assert {limit["cap_usd"] for limit in shown if limit["owner"] == "agent"} == {"1.500000000"}


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("0.1", "0.1"),
        ("1234567.891234", "1234567.891234"),
        ("123456789.123456", "123456789.123456"),
        ("0.100000000", "0.1"),
        ("1.50000000000000000000", "1.5"),
        ("123456789.1234567891", None),
        ("123456789.123456001", None),
        ("0.1000000000000000000000000000001", None),
        ("1e-400", None),
        ("1e-99999999999999999999", None),
    ],
)
async def test_numbers_are_taken_as_they_are_or_not_at_all(
    api: httpx2.AsyncClient, number: str, kept: str | None
) -> None:
    run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
    body = f'{{"scope": "run", "owner": "run", "name": "{run}", "cap_tokens": null, "cap_usd": {number}}}'
    if kept is None:
        await refused(api, "PUT", "/budgets", body, "send it as a text")
        return
    headers = {"Content-Type": "application/json"}
    answer = await api.put("/api/v1/budgets", content=body.encode(), headers=headers)
    assert answer.json()["data"]["cap_usd"] == kept, answer.text


@pytest.mark.parametrize("usd", ['"1250.50"', '".5"', '"1."', '"+0.000000001"', "1e-9", "3"])
async def test_plain_amounts_are_taken(api: httpx2.AsyncClient, usd: str) -> None:
    run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
    headers = {"Content-Type": "application/json"}
    body = f'{{"usd": {usd}, "reason": "owed"}}'.encode()
    taken = await api.post(f"/api/v1/runs/{run}/adjustments", content=body, headers=headers)
    assert taken.status_code in (200, 201), taken.text


async def test_explanations(
    api: httpx2.AsyncClient, client: Caller, ids: dict[str, str], team: Team, db: Database
) -> None:
    before = await kept(db, team)
    for (method, path, field), body in EXPLANATIONS.items():
        answer = await api.request(method, f"/api/v1{path.format(**ids)}", json=body | {field: "x" * 10_000})
        assert answer.status_code == 422, (path, answer.text)
        assert f"body.{field}: " in answer.json()["error"]["message"], answer.text
        assert "2000" in answer.json()["error"]["message"], answer.text
    for path in ("/agents/{agent}/approve", "/audit/{row_id}/redact"):
        field = "reason" if "audit" in path else "explanation"
        for nothing in ("", " \n", "\u200b\u3164"):
            answer = await api.post(f"/api/v1{path.format(**ids)}", json={field: nothing})
            assert answer.status_code == 422, (path, nothing, answer.text)
    assert await kept(db, team) == before
