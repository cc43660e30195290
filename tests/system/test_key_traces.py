"""After a full run no key is anywhere but with who holds it: not in logs, rows, events or Temporal's histories."""

from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.fixtures.product import Product, running
from workflows.client import connect

pytestmark = pytest.mark.timeout(180)
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"


async def test_a_run_leaves_no_key_behind(server_dir: Path) -> None:
    root = server_dir / "key-traces"
    root.mkdir()
    async with running(root) as product:
        async with AsyncExitStack() as callers:
            secrets, mission = await run_with_every_key(product, callers)
        places = {
            "the logs": b"".join(log.read_bytes() for log in (product.stack.settings.data_dir / "logs").iterdir()),
            "the rows": stored(product),
            "the histories": await histories(product),
        }
    assert len(secrets) == 4
    for place, found in places.items():
        assert mission.encode() in found, f"the search sees nothing of {place}"
        assert [secret[:4] for secret in secrets if secret.encode() in found] == [], f"in {place}"


async def run_with_every_key(product: Product, callers: AsyncExitStack) -> tuple[list[str], str]:
    """Take a mission to its end: filed by an agent, executed by an operator, approved by the admin."""
    api, repo = product.api, product.repo()

    async def by(key: str) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(base_url=api.base_url, headers={"X-API-Key": key}, timeout=30)
        return await callers.enter_async_context(client)

    await api.post("/repositories", json={"url": str(repo.path), "name": "calc", "protected": True})
    operator = (await api.post("/keys", json={"principal": "olga", "role": "operator"})).json()["data"]["secret"]
    asked = await api.post("/agents", json={"name": "probe", "endpoint": "https://agents.example.org"})
    made = asked.json()["data"]
    await api.post(f"/agents/{made['agent_id']}/approve", json={})
    shown = await (await by(made["registration_token"])).get(f"/agents/{made['agent_id']}")
    agent = shown.json()["data"]["key"]
    await (await by(agent)).post(f"/agents/{made['agent_id']}/heartbeat")
    product.api = await by(agent)
    mission = await product.file(repo, execute=False)
    product.api = await by(operator)
    await product.execute(mission)
    product.api = api
    await product.resolve(await product.pending_decision(mission), "approve")
    assert (await product.ended(mission))["outcome"] == "merged"
    return [api.headers["authorization"].split()[1], operator, made["registration_token"], agent], mission


def stored(product: Product) -> bytes:
    """Every row of every table, as text."""
    names = [row["relname"] for row in product.rows(TABLES)]
    rows = [row["row"] for name in names for row in product.rows(f'SELECT t::text AS row FROM "{name}" t')]  # noqa: S608
    return "\n".join(rows).encode()


async def histories(product: Product) -> bytes:
    """Every event of every workflow, with its payloads as they are."""
    client = await connect(product.stack.settings)
    found = []
    async for workflow in client.list_workflows():
        history = await client.get_workflow_handle(workflow.id, run_id=workflow.run_id).fetch_history()
        found += [event.SerializeToString() for event in history.events]
    return b"".join(found)
