"""Missions wait for answers while processes die: each is answered once, and goes on."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.fixtures.product import Product
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(240)


async def asking(product: Product, count: int, **body: Any) -> dict[str, str]:
    """Missions that wait, by their decisions."""
    flagged = {"requires_governance_approval": True}
    missions = [await product.file(product.repo(), trust_requirements=flagged, **body) for _ in range(count)]
    return {await product.pending_decision(mission): mission for mission in missions}


async def second_operator(product: Product) -> httpx2.AsyncClient:
    """Another person's client."""
    made = await product.api.post("/keys", json={"principal": "olga", "role": "operator"})
    headers = {"Authorization": f"Bearer {made.json()['data']['secret']}"}
    return httpx2.AsyncClient(base_url=product.api.base_url, headers=headers, timeout=60)


async def scores(product: Product) -> dict[str, float]:
    """How far each agent is trusted now."""
    shown = await product.api.get("/trust-scores")
    assert shown.status_code == 200, shown.text
    return {score["name"]: score["score"] for score in shown.json()["data"]["items"]}


async def test_an_answer_given_while_temporal_is_down(product: Product) -> None:
    [(decision, mission)] = (await asking(product, 1)).items()
    await product.stack.kill("temporal")
    await product.resolve(decision, "approve")
    [row] = product.rows("SELECT status, acknowledged_at FROM decision WHERE decision_id = %s", decision)
    assert (row["status"], row["acknowledged_at"]) == ("approved", None)
    await product.stack.start("temporal")
    assert (await product.ended(mission))["outcome"] == "merged"


async def test_each_part_dies_while_missions_wait(product: Product) -> None:
    for name in ("robot", "another"):
        assert (await product.api.post("/principals", json={"name": name, "kind": "agent"})).status_code == 201
    waiting = await asking(product, 3, assigned_to="robot")
    decision, mission = waiting.popitem()
    await product.resolve(decision, "approve")
    assert (await product.ended(mission))["outcome"] == "merged"
    trusted = await scores(product)
    assert trusted == {"robot": 0.52, "another": 0.5}, "a merge has moved the score of its mission's agent"
    for part in ("api", "worker", "temporal", "postgres"):
        await product.stack.kill(part)
    for part in ("postgres", "temporal", "worker", "api"):
        await product.stack.start(part)
    pending = product.rows("SELECT decision_id FROM decision WHERE status = 'pending'")
    assert {row["decision_id"] for row in pending} == set(waiting), "none is lost"
    assert await scores(product) == trusted
    async with await second_operator(product) as olga:
        await answered_by_both(product, olga, list(waiting))
    for mission in waiting.values():
        assert (await product.ended(mission))["outcome"] == "merged"
    await until(lambda: all_answered_once(product), 10)
    assert await scores(product) == {"robot": 0.56, "another": 0.5}


async def answered_by_both(product: Product, olga: httpx2.AsyncClient, decisions: list[str]) -> None:
    """Two people answer everything at once; of each two answers one stands."""

    async def answer(api: httpx2.AsyncClient, decision: str) -> int:
        body = {"decision": "approve", "explanation": "read it"}
        return (await api.post(f"/decisions/{decision}/resolve", json=body)).status_code

    codes = await asyncio.gather(*(answer(api, name) for name in decisions for api in (product.api, olga)))
    for mine, hers in zip(codes[::2], codes[1::2], strict=True):
        # Who filed it may not answer any more, now that somebody else could.
        assert (mine in (403, 409), hers) == (True, 200)


def all_answered_once(product: Product) -> bool:
    """Whether everything has one answer, one row of it and one event."""
    told = product.rows(
        "SELECT subject_id FROM event WHERE type = 'decision.approved' GROUP BY subject_id HAVING count(*) > 1"
    )
    open_ones = product.rows("SELECT 1 FROM decision WHERE status = 'pending'")
    twice = product.rows("SELECT decision_id FROM decision_answer GROUP BY decision_id HAVING count(*) > 1")
    return not (told or open_ones or twice)
