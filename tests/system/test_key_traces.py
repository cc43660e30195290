"""After a full run no secret is anywhere but with who holds it: not in logs, dumps, streams, histories or files."""

import asyncio
import subprocess
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fixtures.misplaced import misplace
from tests.fixtures.product import Product, running
from worker.dev.postgres import installed_binaries
from workflows.client import connect

pytestmark = pytest.mark.timeout(180)
HOLDERS = {"admin.key", "signing_key", "postgres.password"}
"""The files of the data folder that hold a secret, and are readable to their owner only."""


async def test_a_run_leaves_no_secret_behind(server_dir: Path) -> None:
    root = server_dir / "key-traces"
    root.mkdir()
    async with running(root) as product:
        data = product.stack.settings.data_dir
        async with AsyncExitStack() as callers:
            everybody = Everybody(product, callers)
            mission = await everybody.run()
            said = [answer for key in everybody.keys for answer in await misplace(await everybody.by(key), key)]
            said.append((await product.api.get(f"/missions/{mission}/evidence")).text)
            places = {
                "the event stream": await streamed(product, mission),
                "answers": "".join(said).encode(),
                "the dump": await asyncio.to_thread(dumped, product),
                "the histories": await histories(product),
                "the logs": b"".join(log.read_bytes() for log in (data / "logs").iterdir()),
                "the data folder": await asyncio.to_thread(files, data),
            }
    assert len(everybody.keys) == 9
    secrets = [*everybody.keys, (data / "postgres.password").read_text(), (data / "signing_key").read_text()[100:160]]
    for place, found in places.items():
        assert mission.encode() in found, f"the search sees nothing of {place}"
        for secret in secrets:
            for form in (secret, secret.encode().hex()):
                assert form.encode() not in found, f"{secret[:4]}… is in {place}"
    assert [name for name in HOLDERS if (data / name).stat().st_mode & 0o077] == []


class Everybody:
    """Callers of every kind, and all the keys, tokens and cookies that they were given."""

    def __init__(self, product: Product, callers: AsyncExitStack) -> None:
        self._product, self._callers = product, callers
        self.admin = product.api
        self.keys = [self.admin.headers["authorization"].split()[1]]

    async def by(self, key: str) -> httpx2.AsyncClient:
        """A caller with a key."""
        client = httpx2.AsyncClient(
            base_url=self._product.stack.settings.api_url, headers={"X-API-Key": key}, timeout=30
        )
        return await self._callers.enter_async_context(client)

    async def run(self) -> str:
        """Take a mission to its end: filed by an agent, executed by an operator, approved by the admin."""
        product, admin, repo = self._product, self.admin, self._product.repo()
        await admin.post("/repositories", json={"url": str(repo.path), "name": "calc", "protected": True})
        operator = await self._operator()
        agent = await self._agent()
        mission = await self._as(agent, product.file(repo, execute=False))
        await self._as(operator, product.execute(mission))
        await product.resolve(await product.pending_decision(mission), "approve")
        assert (await product.ended(mission))["outcome"] == "merged"
        await self._others(operator)
        return str(mission)

    async def _as(self, key: str, doing: Any) -> Any:
        caller = await self.by(key)
        caller.base_url = self.admin.base_url
        self._product.api = caller
        try:
            return await doing
        finally:
            self._product.api = self.admin

    def _keep(self, answer: httpx2.Response, field: str = "secret") -> str:
        assert answer.is_success, answer.text
        self.keys.append(answer.json()["data"][field])
        return self.keys[-1]

    async def _operator(self) -> str:
        made = await self.admin.post("/keys", json={"principal": "olga", "role": "operator"})
        self._keep(made)
        key = made.json()["data"]["key_id"]
        return self._keep(await self.admin.post(f"/keys/{key}/rotate", json={}, headers={"Idempotency-Key": "once"}))

    async def _agent(self) -> str:
        asked = await self.admin.post("/agents", json={"name": "probe", "endpoint": "https://agents.example.org"})
        token, place = self._keep(asked, "registration_token"), f"/api/v1/agents/{asked.json()['data']['agent_id']}"
        await self.admin.post(f"{self.admin.base_url.join(place)}/approve", json={"explanation": "known"})
        agent = await self.by(self._keep(await (await self.by(token)).get(place), "key"))
        await agent.post(f"{place}/heartbeat")
        return self._keep(await agent.post(f"{place}/rotate-key", json={}))

    async def _others(self, operator: str) -> None:
        """Keys that are not needed for the mission, and a browser's cookie."""
        self._keep(await self.admin.post("/keys", json={"principal": "ci", "kind": "service"}))
        self._keep(await self.admin.post("/workspaces", json={"slug": "second", "name": "Second"}))
        opened = await (await self.by(operator)).post("/api/v1/auth/session", json={"key": operator})
        self.keys.append(opened.headers["set-cookie"].split("=", 1)[1].split(";")[0])


async def streamed(product: Product, mission: str) -> bytes:
    """What a watcher of all events has got by the mission's end."""
    found = b""
    async with product.api.stream("GET", "/events?after=0-0-0") as stream:
        async for chunk in stream.aiter_bytes():
            found += chunk
            if b"event: mission.merged" in found and mission.encode() in found:
                return found
    raise AssertionError("the stream ended")


def dumped(product: Product) -> bytes:
    """The database as a backup holds it."""
    dump = [str(installed_binaries() / "pg_dump"), product.url]
    return subprocess.run(dump, capture_output=True, check=True).stdout


async def histories(product: Product) -> bytes:
    """Every event of every workflow, with its payloads as they are."""
    client = await connect(product.stack.settings)
    found = []
    async for workflow in client.list_workflows():
        history = await client.get_workflow_handle(workflow.id, run_id=workflow.run_id).fetch_history()
        found += [event.SerializeToString() for event in history.events]
    return b"".join(found)


def files(data: Path) -> bytes:
    """All files that a run leaves, also those of PostgreSQL and Temporal, but the holders."""
    found = []
    for file in data.rglob("*"):
        if file.is_file() and file.name not in HOLDERS:
            with suppress(FileNotFoundError):  # the servers go on
                found.append(file.read_bytes())
    return b"".join(found)
