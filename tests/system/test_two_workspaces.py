"""Two workspaces whose missions run at once on one worker: each finds its own in every list, and nothing else's."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from tests.fixtures.product import Product

pytestmark = pytest.mark.timeout(180)

LISTS = {
    "/missions": ("mission", "mission_id"),
    "/repositories": ("repository", "repository_id"),
    "/decisions": ("decision", "decision_id"),
    "/policy/verdicts": ("verdict", "verdict_id"),
    "/runs": ("run", "run_id"),
    "/capa": ("capa", "capa_id"),
    "/audit": ("audit", "id"),
    "/agents": ("agent", "agent_id"),
    "/keys": ("api_key", "key_id"),
}
"""What a workspace can list, and the rows that this is. Missions are numbered in each, so that their ids are equal."""


@asynccontextmanager
async def founded(product: Product, slug: str) -> AsyncIterator[Product]:
    """Found another workspace; the same product, as its founder sees it."""
    made = (await product.api.post("/workspaces", json={"slug": slug, "name": slug})).json()["data"]
    headers = {"Authorization": f"Bearer {made['secret']}"}
    async with httpx2.AsyncClient(base_url=product.api.base_url, headers=headers, timeout=30) as api:
        yield replace(product, api=api)


async def taken_to_their_end(place: Product, agent: str) -> set[str]:
    """File missions of an agent of the workspace's own; their ids, when one has merged and the other one failed."""
    assert (await place.api.post("/principals", json={"name": agent, "kind": "agent"})).status_code == 201
    assert (await place.api.patch(f"/agents/{agent}", json={"level": "lead"})).status_code == 200
    whose: dict[str, Any] = {"assigned_to": agent, "subsystem_id": agent}
    merging = await place.file(place.repo(), **whose)
    failing = await place.file(place.repo(), patch={"calc.txt": "a * b\n"}, **whose)
    ended = [(await place.ended(mission))["outcome"] for mission in (merging, failing)]
    assert ended == ["merged", "failed"]
    return {merging, failing}


async def listed(place: Product, path: str) -> list[dict[str, Any]]:
    """All that a list has, page by page."""
    found, cursor = list[dict[str, Any]](), None
    while True:
        answer = await place.api.get(path, params={"limit": 200} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()["data"]
        found += page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            return found


async def test_each_lists_its_own_and_nothing_else(product: Product) -> None:
    async with founded(product, "east") as east, founded(product, "west") as west:
        missions = await asyncio.gather(taken_to_their_end(east, "bot-east"), taken_to_their_end(west, "bot-west"))
        assert at_once(product), "they have worked at the same time"
        assert len(product.rows("SELECT DISTINCT host FROM workbench")) == 1, "and on the same worker"
        for path, (table, name) in LISTS.items():
            mine, theirs = [await listed(place, path) for place in (east, west)]
            assert {json.dumps(row) for row in mine}.isdisjoint({json.dumps(row) for row in theirs}), path
            assert "bot-west" not in json.dumps(mine), path
            assert "bot-east" not in json.dumps(theirs), path
            for rows, slug in ((mine, "east"), (theirs, "west")):
                assert rows, f"{path} has something of each"
                assert {str(row[name]) for row in rows} == rows_of(product, table, name, slug), path
        for place, own in zip((east, west), missions, strict=True):
            assert {row["mission_id"] for row in await listed(place, "/missions")} == own
            status = (await place.api.get("/status")).json()["data"]
            counted = [status[f"{kind}_missions"] for kind in ("total", "resolved", "escalated")]
            assert counted == [2, 1, 1]


def rows_of(product: Product, table: str, name: str, workspace: str) -> set[str]:
    found = product.rows(f"SELECT {name}::text AS name FROM {table} WHERE workspace_id = %s", workspace)  # noqa: S608
    return {row["name"] for row in found}


def at_once(product: Product) -> bool:
    """Whether a stage of one workspace began while one of the other was not at its end."""
    return bool(
        product.rows(
            "SELECT 1 FROM stage a JOIN stage b ON a.workspace_id < b.workspace_id"
            " AND a.started_at < b.ended_at AND b.started_at < a.ended_at LIMIT 1"
        )
    )
