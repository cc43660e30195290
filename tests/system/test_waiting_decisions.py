"""A thousand questions at once, while processes die: each is answered once, and its mission goes on at once."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.fixtures.product import Product, running
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(240)

MANY = 1_000
GOES_ON = 1.0
"""Seconds from an answer to the moment when the mission's workflow has heard of it."""

FILL = """
INSERT INTO decision (workspace_id, decision_id, kind, round, candidate, status, risk, requested_by)
SELECT 'default', 'question.' || n, 'agent_question', 0, 0, 'pending', 'YELLOW', 'robot' FROM generate_series(1, %s) n
"""


@pytest.fixture(scope="module")
async def product(server_dir: Path) -> AsyncIterator[Product]:
    """The product, for the tests of this file."""
    root = server_dir / "waiting-decisions"
    root.mkdir()
    async with running(root) as product:
        yield product


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


async def test_a_thousand(product: Product) -> None:
    for name in ("robot", "another"):
        assert (await product.api.post("/principals", json={"name": name, "kind": "agent"})).status_code == 201
    waiting = await asking(product, 6, assigned_to="robot")
    with psycopg.connect(product.url, autocommit=True) as owner:
        owner.execute(FILL, [MANY])
    counts = (await product.api.get("/decisions/counts")).json()["data"]
    assert counts["by_kind"] == {"agent_question": MANY, "governance": len(waiting)}

    before, after = list(waiting.items())[:3], list(waiting.items())[3:]
    for decision, mission in before:
        await product.resolve(decision, "approve")
        assert (await product.ended(mission))["outcome"] == "merged"
    heard = product.rows(
        "SELECT extract(epoch FROM acknowledged_at - resolved_at) AS seconds FROM decision WHERE decision_id = ANY(%s)",
        [decision for decision, _ in before],
    )
    assert statistics.median(float(row["seconds"]) for row in heard) < GOES_ON

    trusted = await scores(product)
    assert trusted == {"robot": 0.56, "another": 0.5}, "each merge has moved the score of its mission's agent"
    for part in ("api", "worker", "temporal", "postgres"):
        await product.stack.kill(part)
    for part in ("postgres", "temporal", "worker", "api"):
        await product.stack.start(part)
    pending = product.rows("SELECT decision_id FROM decision WHERE status = 'pending'")
    assert len(pending) == MANY + len(after), "none is lost"
    assert await scores(product) == trusted

    async with await second_operator(product) as olga:
        await answered_by_both(product, olga, [row["decision_id"] for row in pending])
    for _, mission in after:
        assert (await product.ended(mission))["outcome"] == "merged"
    await until(lambda: all_answered_once(product), 10)
    assert await scores(product) == {"robot": 0.62, "another": 0.5}


async def answered_by_both(product: Product, olga: httpx2.AsyncClient, decisions: list[str]) -> None:
    """Two people answer everything at once; of each two answers one is the first."""
    free = asyncio.Semaphore(16)

    async def answer(api: httpx2.AsyncClient, decision: str) -> int:
        async with free:
            body = {"decision": "approve", "explanation": "read it"}
            return (await api.post(f"/decisions/{decision}/resolve", json=body)).status_code

    codes = await asyncio.gather(*(answer(api, name) for name in decisions for api in (product.api, olga)))
    for name, mine, hers in zip(decisions, codes[::2], codes[1::2], strict=True):
        if ".governance." in name:  # who filed it may not answer any more, now that somebody else could
            assert (mine in (403, 409), hers) == (True, 200)
        else:
            assert sorted((mine, hers)) == [200, 409]


def all_answered_once(product: Product) -> bool:
    """Whether everything has one answer, one row of it and one event."""
    told = product.rows(
        "SELECT subject_id FROM event WHERE type = 'decision.approved' GROUP BY subject_id HAVING count(*) > 1"
    )
    open_ones = product.rows("SELECT 1 FROM decision WHERE status = 'pending'")
    twice = product.rows("SELECT decision_id FROM decision_answer GROUP BY decision_id HAVING count(*) > 1")
    return not (told or open_ones or twice)
