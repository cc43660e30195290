"""SIGKILL in the middle of an act: nothing of it is half done, and the same request again gives one effect."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from tests.fixtures.product import Product
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(240)

HOLD = """
CREATE OR REPLACE FUNCTION test_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(8, 1);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER test_hold AFTER INSERT ON {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION test_hold();
"""
WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 8 AND NOT granted"
SHOWN = """
WITH it AS (SELECT %s::text AS sought, %s::text AS told)
SELECT concat_ws(' ', {}, (SELECT count(*) FROM event WHERE type = told AND subject_id = sought),
    (SELECT count(*) FROM audit WHERE action = told AND subject_id = sought)) AS state FROM it
"""
ANSWERED = """
(SELECT status FROM decision WHERE decision_id = sought),
(SELECT count(*) FROM decision_answer WHERE decision_id = sought)
"""
IN_FORCE = "(SELECT version::text = sought FROM policy_active)"
ROTATED = """
(SELECT count(*) FROM api_key WHERE lineage = sought),
(SELECT rotated_to IS NOT NULL AND expires_at IS NOT NULL FROM api_key WHERE key_id = sought)
"""
PAID = """
(SELECT string_agg(kind, ',' ORDER BY at) FROM ledger WHERE run_id = sought),
(SELECT reserved_usd::float || ' ' || settled_usd::float FROM budget WHERE scope = 'run' AND subject = sought)
"""
COUNTED = """
SELECT b.settled_usd AS counted, coalesce(sum(l.usd) FILTER (WHERE l.kind IN ('settle', 'adjust')), 0) AS paid
FROM budget b JOIN ledger l ON l.workspace_id = b.workspace_id AND l.month = b.period
WHERE b.scope = 'workspace_month' GROUP BY b.workspace_id, b.period, b.settled_usd
"""


@dataclass(frozen=True)
class Act:
    """A request, the insert at which its transaction is held, and what shows all that it changes, before and after."""

    path: str
    body: dict[str, Any]
    table: str
    told: str
    about: str
    shown: str
    before: str
    after: str

    @property
    def when(self) -> str:
        """Which insert it is."""
        column = "kind" if self.table == "ledger" else "action"
        return f"NEW.{column} = '{self.told}'"

    def state(self, product: Product) -> str:
        """How far it is done."""
        return str(product.rows(SHOWN.format(self.shown), self.about, self.told)[0]["state"])


async def resolve(product: Product) -> Act:
    """Approve a mission's merge."""
    asks = {"requires_governance_approval": True}
    decision = await product.pending_decision(await product.file(product.repo(), trust_requirements=asks))
    body, path = {"decision": "approve", "explanation": "read it"}, f"/decisions/{decision}/resolve"
    shown = (ANSWERED, "pending 0 0 0", "approved 1 1 1")
    return Act(path, body, "audit", "decision.approved", decision, *shown)


async def activate(product: Product) -> Act:
    """Put another version of the policy in force."""
    source = (await product.api.get("/policy")).json()["data"]["source"]
    version = str((await product.post("/policy/versions", {"source": source})).json()["data"]["version"])
    path, shown = f"/policy/versions/{version}/activate", (IN_FORCE, "f 0 0", "t 1 1")
    return Act(path, {}, "audit", "policy.activated", version, *shown)


async def rotate(product: Product) -> Act:
    """Rotate a service's key."""
    made = await product.post("/keys", {"principal": f"ci-{uuid4().hex[:8]}", "kind": "service"})
    key = str(made.json()["data"]["key_id"])
    shown = (ROTATED, "1 f 0 0", "2 t 1 1")
    return Act(f"/keys/{key}/rotate", {}, "audit", "api_key.rotated", key, *shown)


async def reserve(product: Product) -> Act:
    """Reserve for a call of a run that has paid for another."""
    run = (await product.post("/runs", {"level": "lead"})).json()["data"]["run_id"]
    await product.post(f"/runs/{run}/costs", {"usd": "0.01"})
    shown = (PAID, "reserve,settle 0 0.01 0 0", "reserve,settle,reserve 0.5 0.01 0 0")
    return Act(f"/runs/{run}/reservations", {"usd": "0.5"}, "ledger", "reserve", run, *shown)


async def settle(product: Product) -> Act:
    """Pay what was reserved."""
    first = await reserve(product)
    cost = (await product.post(first.path, first.body)).json()["data"]["cost_id"]
    shown = (PAID, first.after, "reserve,settle,reserve,settle 0 0.26 0 0")
    return Act(f"{first.path}/{cost}/settle", {"usd": "0.25"}, "ledger", "settle", first.about, *shown)


@contextmanager
def held(product: Product, table: str, when: str = "true") -> Iterator[Callable[[], int | None]]:
    """Hold transactions at an insert until the end; tells which backend of Postgres waits there."""
    owner = psycopg.connect(product.url, autocommit=True)
    try:
        owner.execute(HOLD.format(table, when).encode())
        owner.execute("SELECT pg_advisory_lock(8, 1)")
        yield lambda: next((row["pid"] for row in product.rows(WAITING)), None)
    finally:
        owner.close()


async def killed_in(product: Product, part: str, waiting: Callable[[], int | None]) -> int:
    """Kill a part when a transaction waits; the backend of it."""
    await until(lambda: waiting() is not None, 60)
    pid = waiting()
    assert pid is not None, "it is held until the test lets it go"
    await product.stack.kill(part)
    return pid


async def back(product: Product, part: str, backend: int) -> None:
    """Start a part again, and wait until Postgres is done with what was held."""
    await product.stack.start(part)
    await until(
        lambda: not product.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state <> 'idle'", backend), 30
    )
    assert_counted(product)


def assert_counted(product: Product) -> None:
    """Each month's counter is what its rows of the ledger come to."""
    months = product.rows(COUNTED)
    assert all(month["counted"] == month["paid"] for month in months), months


@pytest.mark.parametrize("part", ["api", "postgres"])
@pytest.mark.parametrize("prepare", [resolve, reserve, settle, rotate, activate])
async def test_a_request(product: Product, prepare: Callable[[Product], Awaitable[Act]], part: str) -> None:
    act, key = await prepare(product), uuid4().hex
    assert act.state(product) == act.before
    with held(product, act.table, act.when) as waiting:
        asked = asyncio.create_task(product.api.post(act.path, json=act.body, headers={"Idempotency-Key": key}))
        backend = await killed_in(product, part, waiting)
        with suppress(httpx2.TransportError):
            assert (await asked).status_code == 503
    await back(product, part, backend)
    assert act.state(product) in (act.before, act.after), "what was sent as a whole is done as a whole, or not at all"
    answers = [await product.post(act.path, act.body, key) for _ in range(3)]
    assert act.state(product) == act.after
    assert {answer.status_code for answer in answers} <= {200, 201}, answers[0].text
    first, *others = [answer.json()["data"] | {"secret": None} for answer in answers]
    assert others == [first, first]


@pytest.mark.parametrize("part", ["temporal", "worker"])
async def test_an_answer_while_those_who_wait_for_it_die(product: Product, part: str) -> None:
    act = await resolve(product)
    mission = product.rows("SELECT mission_id FROM decision WHERE decision_id = %s", act.about)[0]["mission_id"]
    with held(product, act.table, act.when) as waiting:
        asked = asyncio.create_task(product.api.post(act.path, json=act.body))
        backend = await killed_in(product, part, waiting)
    assert (await asked).status_code == 200
    assert act.state(product) == act.after
    await back(product, part, backend)
    assert (await product.ended(mission))["outcome"] == "merged"


@pytest.mark.parametrize("part", ["temporal", "worker"])
@pytest.mark.parametrize("prepare", [reserve, settle, rotate, activate])
async def test_a_request_while_those_with_no_part_in_it_die(
    product: Product, prepare: Callable[[Product], Awaitable[Act]], part: str
) -> None:
    act, key = await prepare(product), uuid4().hex
    with held(product, act.table, act.when) as waiting:
        asked = asyncio.create_task(product.api.post(act.path, json=act.body, headers={"Idempotency-Key": key}))
        backend = await killed_in(product, part, waiting)
        assert (waiting(), asked.done(), act.state(product)) == (backend, False, act.before)
    answer = await asked
    assert answer.is_success, answer.text
    assert act.state(product) == act.after, "done with this one answer, while the other is still dead"
    again = await product.post(act.path, act.body, key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (answer.status_code, "true")
    await back(product, part, backend)
    assert act.state(product) == act.after


@pytest.mark.parametrize("part", ["worker", "postgres", "temporal", "api"])
async def test_the_settling_of_what_a_mission_took(product: Product, part: str) -> None:
    repo = product.repo()
    with held(product, "ledger", "NEW.kind = 'settle' AND NEW.mission_id IS NOT NULL") as waiting:
        mission = await product.file(repo)
        backend = await killed_in(product, part, waiting)
    await back(product, part, backend)
    [found] = product.rows(
        "SELECT (SELECT count(*) FROM run WHERE mission_id = %s AND ended_at IS NOT NULL) AS ended,"
        " (SELECT count(*) FROM ledger WHERE mission_id = %s AND kind = 'settle') AS paid",
        *(mission, mission),
    )
    assert found["ended"] == found["paid"], "no end without its price, and no price before the end"
    assert (await product.ended(mission))["outcome"] == "merged"
    paid = product.rows("SELECT kind FROM ledger WHERE mission_id = %s ORDER BY at", mission)
    assert [row["kind"] for row in paid] == ["reserve", "settle"]
    assert_counted(product)
    product.assert_unharmed(mission, repo)


async def act_to_seal(product: Product) -> int:
    """Do something; the newest row of the audit log."""
    await product.post("/principals", {"name": f"olga-{uuid4().hex[:8]}", "role": "observer"})
    return int(product.rows("SELECT max(id) AS id FROM audit")[0]["id"])


async def assert_sealed(product: Product, newest: int) -> None:
    """Each leaf has its checkpoint, and soon all acts up to the newest have their leaf."""
    [found] = product.rows(
        "SELECT (SELECT count(*) FROM audit_leaf) AS leaves, (SELECT max(size) FROM audit_checkpoint) AS size"
    )
    assert found["leaves"] == found["size"], "no leaf without its checkpoint"
    unsealed = "SELECT 1 FROM audit LEFT JOIN audit_leaf USING (workspace_id, id) WHERE leaf IS NULL AND id <= %s"
    await until(lambda: not product.rows(unsealed, newest), 30)
    verdict = (await product.api.get("/audit/verify")).json()["data"]
    assert (verdict["problem"], verdict["good"]) == (None, True)


@pytest.mark.parametrize("part", ["worker", "postgres"])
async def test_a_seal(product: Product, part: str) -> None:
    with held(product, "audit_checkpoint") as waiting:
        newest = await act_to_seal(product)
        backend = await killed_in(product, part, waiting)
    await back(product, part, backend)
    await assert_sealed(product, newest)


@pytest.mark.parametrize("part", ["api", "temporal"])
async def test_a_seal_while_those_with_no_part_in_it_die(product: Product, part: str) -> None:
    with held(product, "audit_checkpoint") as waiting:
        newest = await act_to_seal(product)
        backend = await killed_in(product, part, waiting)
        [sealing] = product.rows("SELECT backend_xid::text AS xid FROM pg_stat_activity WHERE pid = %s", backend)
    await back(product, part, backend)
    assert product.rows("SELECT 1 FROM audit_checkpoint WHERE xmin = (%s::text)::xid", sealing["xid"])
    await assert_sealed(product, newest)
