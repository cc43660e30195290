"""Reading what stages left behind: records, logs, evidence."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from cryptography.exceptions import InvalidSignature

from activities.workbench.signing import ServiceKey
from models.contracts.missions import TestResult
from models.domain.canonical import canonical_json, sha256_digest
from models.domain.stages import StageName, StageStatus
from models.store import missions, records, signing_keys
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from models.store.stages import NewEvidence
from tests.fixtures.api import Caller, Team
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo
from tests.fixtures.stages import Recorder, service_key
from tests.fixtures.waiting import eventually

__all__ = ["repo", "service_key"]

DOCUMENT = Path(__file__).parents[2] / "docs/api.md"
OPEN_TRANSACTIONS = """
SELECT pid, xact_start FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'
"""
DIGEST = sha256_digest(DIFF.encode())


@pytest.fixture
def recorder(db: Database, team: Team, service_key: ServiceKey) -> Recorder:
    return Recorder(db, team.workspace_id, service_key)


@pytest.fixture
async def mission(api: httpx2.AsyncClient, repo: Repo) -> dict[str, Any]:
    return await filed(api, repo, patch_candidates=[{"diff": DIFF}])


def of(mission: dict[str, Any], rest: str) -> str:
    return f"/api/v1/missions/{mission['mission_id']}/{rest}"


class TestRecords:
    async def test_lists_them_in_order(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        for stage in (StageName.FETCH_CONTEXT, StageName.PULL_CODE, StageName.SECURITY_SCAN):
            await recorder.end(await recorder.begin(mission["mission_id"], stage))
        page = (await api.get(of(mission, "stages?limit=2"))).json()["data"]
        rest = (await api.get(of(mission, f"stages?limit=2&cursor={page['next_cursor']}"))).json()["data"]
        assert [stage["number"] for stage in page["items"] + rest["items"]] == ["1", "2", "4s"]
        assert rest["next_cursor"] is None

    async def test_finds_one_by_number_and_by_name(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        await recorder.end(await recorder.begin(mission["mission_id"], StageName.SECURITY_SCAN), reason="clean")
        for name in ("4s", "security_scan"):
            found = (await api.get(of(mission, f"stages/{name}"))).json()["data"]
            assert (found["stage"], found["status"], found["reason"]) == ("security_scan", "passed", "clean")
            assert found["signature"]
            assert found["key_id"] == recorder.key.key_id
        assert refusal(await api.get(of(mission, "stages/12"))) == (404, "stage_not_found")
        assert refusal(await api.get(of(mission, "stages/9"))) == (404, "stage_not_found")

    async def test_shows_the_latest_run_unless_told_which(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        for place in ({"candidate": 0}, {"candidate": 1}, {"round_": 1, "candidate": 1}):
            record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS, **place)
            await recorder.end(record, reason=str(place))
        latest = (await api.get(of(mission, "stages/4"))).json()["data"]
        assert (latest["round"], latest["candidate"]) == (1, 1)
        first = (await api.get(of(mission, "stages/4?round=0"))).json()["data"]
        assert (first["round"], first["candidate"]) == (0, 1)
        assert (await api.get(first["links"]["self"])).json()["data"] == first


class TestLog:
    async def test_is_plain_text(self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder) -> None:
        record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
        await recorder.print(record, 0, b"collected ")
        await recorder.print(record, 1, b"3 items\n")
        assert (await api.get(of(mission, "stages/4/log"))).text == "collected 3 items\n"
        await recorder.end(record, log=b"collected 3 items\n3 passed\n")
        answer = await api.get(of(mission, "stages/4/log?offset=18"))
        assert (answer.text, answer.headers["content-type"]) == ("3 passed\n", "text/plain; charset=utf-8")

    async def test_follows_until_the_end(
        self, address: str, team: Team, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
        await recorder.print(record, 0, b"one\n")
        seen: list[str] = []
        headers = {"Authorization": f"Bearer {team.observer}"}
        async with (
            httpx2.AsyncClient(base_url=address, headers=headers, timeout=20) as client,
            client.stream("GET", of(mission, "stages/run_tests/log?follow=true")) as answer,
        ):
            async for piece in answer.aiter_text():
                seen.append(piece)
                if "".join(seen) == "one\n":
                    await recorder.print(record, 1, b"two\n")
                if "".join(seen) == "one\ntwo\n":
                    await recorder.end(record, log=b"one\ntwo\nthree\n")
        assert "".join(seen) == "one\ntwo\nthree\n"

    async def test_following_says_when_a_stage_begins_again(
        self, address: str, team: Team, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
        await recorder.print(record, 0, b"first try\n")
        seen, again = "", None
        headers = {"Authorization": f"Bearer {team.observer}"}
        async with (
            httpx2.AsyncClient(base_url=address, headers=headers, timeout=20) as client,
            client.stream("GET", of(mission, "stages/4/log?follow=true")) as answer,
        ):
            async for piece in answer.aiter_text():
                seen += piece
                if seen == "first try\n":
                    again = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
                if again and "begins again" in seen:
                    await recorder.end(again, log=b"second try\n")
        assert seen == "first try\n\n[mission-control] the stage begins again\nsecond try\n"


class TestEvidence:
    async def test_shows_all_that_is_left(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder
    ) -> None:
        tests = tuple(
            TestResult(name=f"test_{n}", outcome="passed", duration_ms=1.5, run=run)
            for run in ("before", "after")
            for n in range(3)
        )
        await recorder.end(
            await recorder.begin(mission["mission_id"], StageName.RUN_TESTS), log=b"6 passed\n", tests=tests
        )
        report = NewEvidence("diagnostics", canonical_json({"all": "well"}))
        await recorder.end(
            await recorder.begin(mission["mission_id"], StageName.PUBLISH_DIAGNOSTICS), evidence=(report,)
        )
        observation = {"metric_id": "p95", "value": 1.0, "mission_id": mission["mission_id"]}
        await api.post("/api/v1/metrics/observations", json=observation)

        found = (await api.get(of(mission, "evidence?limit=4"))).json()["data"]
        assert [stage["stage"] for stage in found["stages"]] == ["run_tests", "publish_diagnostics"]
        assert all(stage["digest"] and stage["signature"] for stage in found["stages"])
        assert {item["kind"] for item in found["evidence"]} >= {"log", "diagnostics"}
        assert (len(found["test_results"]["items"]), found["test_results"]["total"]) == (4, 6)
        assert [sample["value"] for sample in found["metric_observations"]] == [1.0]
        shown = await api.get(found["links"]["diagnostics"])
        assert (shown.json(), shown.headers["content-type"]) == ({"all": "well"}, "application/json")

        package = (await api.get(f"/api/v1/missions/{mission['mission_id']}")).json()["data"]
        assert [entry["stage"] for entry in package["remediation_history"]] == ["run_tests", "publish_diagnostics"]
        assert len(package["crypto_signatures"]) == 2
        assert package["links"]["diagnostics"] == found["links"]["diagnostics"]
        assert (await api.get(package["evidence"][0]["uri"])).text == "6 passed\n"


class TestDiffAndBlobs:
    async def test_shows_the_filed_diff_and_then_what_git_made_of_it(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder, db: Database
    ) -> None:
        assert (await api.get(of(mission, "diff"))).text == DIFF
        made = NewEvidence("log", b"diff --git a/README.md b/README.md\n")
        record = await recorder.begin(mission["mission_id"], StageName.BRANCH_AND_PATCH)
        await recorder.end(record, evidence=(made,), details={"diff": made.digest})
        assert (await api.get(of(mission, "diff"))).content == made.content

    async def test_a_digest_of_another_mission_is_not_found(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], repo: Repo
    ) -> None:
        other = await filed(api, repo)
        assert (await api.get(of(mission, f"blobs/{DIGEST}"))).text == DIFF
        assert refusal(await api.get(of(other, f"blobs/{DIGEST}"))) == (404, "blob_not_found")
        assert refusal(await api.get(of(other, "diff"))) == (404, "diff_not_found")
        assert (await api.get(of(mission, "blobs/sha256:x"))).status_code == 422

    async def test_nothing_is_served_as_a_page(self, api: httpx2.AsyncClient, repo: Repo, recorder: Recorder) -> None:
        mission = await filed(api, repo)
        page = NewEvidence("log", b"<script>alert(1)</script>")
        await recorder.end(
            await recorder.begin(mission["mission_id"], StageName.RUN_TESTS),
            StageStatus.FAILED,
            evidence=(page,),
        )
        answer = await api.get(of(mission, f"blobs/{page.digest}"))
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_many_readers_of_one_growing_log(
    address: str, team: Team, mission: dict[str, Any], recorder: Recorder
) -> None:
    """Followers hold no connection of the pool between two looks: more of them than it has must all get through."""
    record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
    await recorder.print(record, 0, b"begun\n")
    begun = asyncio.Semaphore(0)

    async def follow(client: httpx2.AsyncClient) -> str:
        seen = ""
        async with client.stream("GET", of(mission, "stages/4/log?follow=true")) as answer:
            async for piece in answer.aiter_text():
                seen += piece
                begun.release()
        return seen

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30)
            )
            for key in (team.observer, team.operator)
        ]
        followers = [asyncio.create_task(follow(client)) for client in clients for _ in range(18)]
        for _ in followers:
            await begun.acquire()
        await recorder.end(record, log=b"begun\nended\n")
        assert set(await asyncio.gather(*followers)) == {"begun\nended\n"}


async def test_a_reader_who_takes_its_time_holds_no_transaction(
    db: Database, team: Team, mission: dict[str, Any], recorder: Recorder, database_url: str
) -> None:
    """What it has not taken yet is ours to keep, and not Postgres's."""
    record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
    await recorder.print(record, 0, b"begun\n")
    async with db.workspace(team.workspace_id) as session:
        followed = await missions.require(session, team.workspace_id, mission["mission_id"])
        stage = await records.require(session, followed, StageName.RUN_TESTS, None, None)
    with psycopg.connect(plain(database_url), autocommit=True) as superuser:
        read: list[bytes] = []

        async def none_is_held() -> bool:
            return not superuser.execute(OPEN_TRANSACTIONS).fetchall()

        async for piece in records.follow(db, followed, stage, 0):
            await eventually(none_is_held)  # while we take our time
            if not read:
                await recorder.end(record, log=b"begun\nended\n")
            read.append(piece)
    assert read == [b"begun\n", b"ended\n"]


@asynccontextmanager
async def following(
    address: str, secret: str, mission: dict[str, Any]
) -> AsyncIterator[tuple[httpx2.AsyncClient, AsyncIterator[bytes]]]:
    """Follow the log of a stage that has printed its first line; the reader, and what comes next."""
    async with (
        httpx2.AsyncClient(base_url=address, headers={"X-API-Key": secret}, timeout=10) as reader,
        reader.stream("GET", of(mission, "stages/4/log?follow=true")) as answer,
    ):
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"begun\n"
        yield reader, pieces


async def test_a_revoked_key_reads_on_in_no_log(
    address: str, client: Caller, team: Team, mission: dict[str, Any], recorder: Recorder
) -> None:
    admin = client(team.admin)
    made = (await admin.post("/api/v1/keys", json={"principal": "olga", "role": "observer"})).json()["data"]
    record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
    await recorder.print(record, 0, b"begun\n")
    async with following(address, made["secret"], mission) as (_, pieces):
        await admin.delete(f"/api/v1/keys/{made['key_id']}")
        async with asyncio.timeout(5):
            with pytest.raises(httpx2.RemoteProtocolError):  # nobody takes it for the stage's end
                assert not [piece async for piece in pieces if piece]


async def test_who_may_read_it_still_reads_on(
    address: str, client: Caller, team: Team, mission: dict[str, Any], recorder: Recorder
) -> None:
    admin = client(team.admin)
    made = (await admin.post("/api/v1/keys", json={"principal": "olga", "role": "operator"})).json()["data"]
    record = await recorder.begin(mission["mission_id"], StageName.RUN_TESTS)
    await recorder.print(record, 0, b"begun\n")
    async with following(address, made["secret"], mission) as (reader, pieces):
        await admin.put(f"/api/v1/workspaces/{team.workspace_id}/members/olga", json={"role": "observer"})
        await eventually(lambda: is_refused(reader))
        await recorder.print(record, 1, b"more\n")
        assert await anext(pieces) == b"more\n"


async def is_refused(reader: httpx2.AsyncClient) -> bool:
    """Whether somebody is an operator no more, for all who ask."""
    return (await reader.get("/api/v1/audit/verify")).status_code == 403


class TestVerify:
    @pytest.fixture
    async def answers(
        self, api: httpx2.AsyncClient, mission: dict[str, Any], recorder: Recorder, db: Database
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a client has: a mission's evidence, and the system's status."""
        await recorder.end(await recorder.begin(mission["mission_id"], StageName.FETCH_CONTEXT), reason="all known")
        await recorder.begin(mission["mission_id"], StageName.PULL_CODE)
        async with db.system() as session:
            actor = Actor("worker", "start/1")
            await signing_keys.publish(session, recorder.key.key_id, recorder.key.public_openssh, actor)
        return (await api.get(of(mission, "evidence"))).json()["data"], (await api.get("/api/v1/status")).json()["data"]

    async def test_the_documented_program_does(self, answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
        evidence, status = answers
        documented()(evidence, status)
        evidence["stages"][0]["reason"] = "all is well"
        with pytest.raises(ValueError, match="fetch_context is not what was signed"):
            documented()(evidence, status)

    async def test_another_s_signature_is_found_out(
        self, answers: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
    ) -> None:
        evidence, status = answers
        record, other = evidence["stages"][0], ServiceKey.load_or_create(tmp_path / "other")
        record["signature"] = other.sign(record["digest"].encode())
        with pytest.raises(InvalidSignature):
            documented()(evidence, status)


def documented() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """The program by which the documentation verifies evidence."""
    found = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    program: dict[str, Any] = {}
    exec(found[1], program)  # noqa: S102  # it is ours
    verify: Callable[[dict[str, Any], dict[str, Any]], None] = program["verify"]
    return verify
