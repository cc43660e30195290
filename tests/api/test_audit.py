"""The audit log through the API: what operators did, exports that verify, proofs, and who may see what."""

import asyncio
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit import leaf_of
from models.domain.audit_verifying import Verifier
from models.domain.checkpoints import raw_key
from models.domain.events import EventType, Subject
from models.domain.stages import StageName
from models.store import events, signing_keys
from models.store.database import Database
from models.store.events import Actor
from models.store.stages import NewEvidence
from tests.fixtures.api import Caller, Team
from tests.fixtures.audit import ODD, OLGA, act, as_superuser, emptied, judged
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import DIFF, filed, refusal, repo
from tests.fixtures.proofs import proves_consistency, proves_inclusion
from tests.fixtures.stages import Recorder, service_key
from tests.fixtures.tool_calls import NO, agent, answer, call, run

__all__ = ["agent", "repo", "run", "service_key"]

API = "/api/v1"


@pytest.fixture(autouse=True)
def fresh_log(app: FastAPI, database_url: str) -> None:
    """A log of the test's own, without the acts of the first start."""
    emptied(database_url)


async def listed(api: httpx2.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    answer = await api.get(f"{API}/audit", params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["data"]["items"]
    return items


async def actions(api: httpx2.AsyncClient, **params: Any) -> list[str]:
    """What was done, the oldest first."""
    return [row["action"] for row in reversed(await listed(api, **params))]


class TestActs:
    async def test_what_operators_do_is_there_with_their_name(self, client: Caller, team: Team, repo: Repo) -> None:
        api, admin, began = client(team.operator), client(team.admin), datetime.now(UTC)
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
        canceled = await api.post(f"{API}/missions/{mission['mission_id']}/cancel", json={})
        capa = (await api.post(f"{API}/capa", json={"title": "t", "cause": "c", "severity": "low"})).json()["data"]
        await api.patch(f"{API}/capa/{capa['capa_id']}", json={"status": "in_progress"})
        made = (await admin.post(f"{API}/keys", json={"principal": "olga", "role": "operator"})).json()["data"]
        rotated = (await admin.post(f"{API}/keys/{made['key_id']}/rotate", json={})).json()["data"]
        await admin.delete(f"{API}/keys/{made['key_id']}")
        assert await actions(api, actor="operator") == [
            "repository.registered",
            "mission.created",
            "mission.escalated",
            "capa.created",
            "capa.changed",
        ]
        assert await actions(api, actor="admin") == [
            "principal.created",
            "api_key.created",
            "api_key.created",
            "api_key.rotated",
            "api_key.revoked",
        ]
        rows = list(reversed(await listed(api)))
        assert {row["actor_kind"] for row in rows} == {"human"}
        times = [datetime.fromisoformat(row["created_at"]) for row in rows]
        assert times == sorted(times)
        assert began <= times[0] <= times[-1] <= datetime.now(UTC)
        mission_id, capa_id, key_id, new_id = mission["mission_id"], capa["capa_id"], made["key_id"], rotated["key_id"]
        about = [mission["repository_id"], mission_id, mission_id, capa_id, capa_id]
        assert [row["subject"]["id"] for row in rows] == [*about, "olga", key_id, new_id, key_id, key_id]
        requests = [row["correlation_id"] for row in rows]
        assert (requests[2], len(set(requests))) == (canceled.headers["x-request-id"], 7)
        assert made["secret"] not in json.dumps(rows)

    async def test_a_stage_s_row_carries_commit_configuration_and_signed_record(
        self, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo, service_key: ServiceKey
    ) -> None:
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
        recorder = Recorder(db, team.workspace_id, service_key)
        record = await recorder.begin(mission["mission_id"], StageName.PUBLISH_DIAGNOSTICS)
        report = NewEvidence("diagnostics", b"{}")
        await recorder.end(record, log=b"x", evidence=(report,), git_sha="a" * 40, config_hash="sha256:1")
        stored = (await api.get(f"{API}/missions/{mission['mission_id']}/stages/6")).json()["data"]
        row = (await listed(api, action="stage.passed"))[0]
        assert (row["git_sha"], row["config_hash"], row["actor_kind"]) == ("a" * 40, "sha256:1", "system")
        signed = row["content"]["record"]
        assert (signed["digest"], signed["signature"]) == (stored["digest"], stored["signature"])
        assert (signed["key_id"], signed["evidence"]) == (service_key.key_id, [report.digest])
        evidence = await api.get(row["links"]["evidence"])
        assert evidence.status_code == 200
        assert report.digest in evidence.text

    async def test_every_event_of_a_kind_that_is_an_act_has_its_row(
        self, api: httpx2.AsyncClient, team: Team, db: Database, repo: Repo, service_key: ServiceKey
    ) -> None:
        mission = await filed(api, repo, patch_candidates=[{"diff": DIFF}])
        recorder = Recorder(db, team.workspace_id, service_key)
        for stage in (StageName.FETCH_CONTEXT, StageName.PULL_CODE):
            await recorder.end(await recorder.begin(mission["mission_id"], stage))
        assert await actions(api, subject=mission["mission_id"]) == [
            "mission.created",
            *["stage.started", "stage.passed"] * 2,
        ]


class TestList:
    async def test_pages_have_no_gap_and_nothing_twice(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        for _ in range(5):
            await act(db, team.workspace_id, 23)
        seen, cursor = list[int](), None
        while True:
            after = f"&cursor={cursor}" if cursor else ""
            page = (await api.get(f"{API}/audit?limit=20&sort=created_at{after}")).json()["data"]
            seen += [row["id"] for row in page["items"]]
            if not (cursor := page["next_cursor"]):
                break
        assert seen == sorted(seen)
        assert len(set(seen)) == len(seen) == 115

    @pytest.mark.parametrize("sort", ["created_at", "-created_at"])
    async def test_nor_have_they_while_rows_come_in(
        self, api: httpx2.AsyncClient, team: Team, db: Database, sort: str
    ) -> None:
        """What was there when the first page was read is read once, whatever is added meanwhile, and however late."""
        for _ in range(6):
            await act(db, team.workspace_id, 10)
        there = {row["id"] for row in await listed(api, limit=200)}
        seen, cursor, pages = list[int](), "", 0
        async with db.workspace(team.workspace_id) as late:
            await events.append(late, team.workspace_id, EventType.CAPA_CHANGED, Subject(kind="capa", id="c"), OLGA)
            while pages < 5:
                await act(db, team.workspace_id, 3)
                page = (await api.get(f"{API}/audit?limit=7&sort={sort}{cursor}")).json()["data"]
                seen += [row["id"] for row in page["items"]]
                cursor, pages = f"&cursor={page['next_cursor']}", pages + 1
        while page["next_cursor"]:
            page = (await api.get(f"{API}/audit?limit=7&sort={sort}{cursor}")).json()["data"]
            seen += [row["id"] for row in page["items"]]
            cursor = f"&cursor={page['next_cursor']}"
        assert len(there) == 60
        assert there <= set(seen)
        assert len(seen) == len(set(seen))

    async def test_it_is_narrowed(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        await act(db, team.workspace_id, 3)
        rows = await listed(api)
        first = rows[-1]["created_at"]
        assert len(await listed(api, subject="m1")) == 1
        assert len(await listed(api, actor="olga", action="mission.noted", subject_kind="mission")) == 3
        assert await listed(api, actor="peter") == []
        assert (len(await listed(api, **{"from": first})), await listed(api, to=first)) == (3, [])
        assert refusal(await api.get(f"{API}/audit", params={"from": "yesterday"}))[0] == 422
        turned = {"from": "2025-01-02T00:00:00Z", "to": "2025-01-01T00:00:00Z"}
        assert refusal(await api.get(f"{API}/audit", params=turned)) == (422, "invalid_input")
        assert refusal(await api.get(f"{API}/audit", params={"form": first})) == (422, "unknown_parameter")

    async def test_one_row(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        await act(db, team.workspace_id, text=ODD)
        [row] = await listed(api)
        assert (await api.get(row["links"]["self"])).json()["data"] == row
        assert row["content"] == {"n": 0, "detail": ODD}
        assert refusal(await api.get(f"{API}/audit/{row['id'] + 1}")) == (404, "audit_not_found")
        assert refusal(await api.get(f"{API}/audit/{2**63}"))[0] == 422


class TestNobodyDeletes:
    async def test_there_is_no_such_route(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        await act(db, team.workspace_id)
        [row] = await listed(api)
        for method in ("DELETE", "PUT", "PATCH"):
            for path in (f"{API}/audit", f"{API}/audit/{row['id']}", f"{API}/audit/export"):
                assert (await api.request(method, path)).status_code == 405
        assert await listed(api) == [row]


class TestWho:
    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/audit", {"observer", "operator", "admin"}),
            ("/audit/checkpoints", {"observer", "operator", "admin"}),
            ("/audit/consistency?from=0&to=0", {"observer", "operator", "admin"}),
            ("/audit/verify", {"operator", "admin"}),
            ("/audit/export", {"admin"}),
        ],
    )
    async def test_may_read_what(self, client: Caller, team: Team, path: str, allowed: set[str]) -> None:
        for role in ("observer", "operator", "admin", "agent", "service"):
            status = (await client(getattr(team, role)).get(f"{API}{path}")).status_code
            assert status == (200 if role in allowed else 403), role
        assert (await client(None).get(f"{API}{path}")).status_code == 401

    async def test_only_an_admin_redacts(self, client: Caller, team: Team, db: Database) -> None:
        await act(db, team.workspace_id, text="swordfish")
        [row] = await listed(client(team.admin))
        place, body = f"{API}/audit/{row['id']}/redact", {"reason": "a secret"}
        assert (await client(team.operator).post(place, json=body)).status_code == 403
        assert refusal(await client(team.admin).post(place, json={"reason": ""}))[0] == 422
        redacted = await client(team.admin).post(place, json=body)
        assert redacted.json()["data"] == row | {"content": None}
        assert refusal(await client(team.admin).post(place, json=body)) == (409, "already_redacted")
        told = (await listed(client(team.admin)))[0]
        assert (told["action"], told["actor"], told["content"]) == ("audit.redacted", "admin", body)

    async def test_only_the_log_forgets(self, agent: httpx2.AsyncClient, client: Caller, team: Team, run: str) -> None:
        """What the act was about keeps its words, and its event, too, as `docs/audit.md` says."""
        admin, said = client(team.admin), "never type swordfish"
        decision = (await call(agent, run, "shell"))["decision_id"]
        await answer(client(team.operator), {"decision_id": decision}, NO | {"explanation": said})
        [row] = [row for row in await listed(admin) if row["action"] == "decision.denied"]
        assert row["content"]["explanation"] == said
        assert (await admin.post(f"{API}/audit/{row['id']}/redact", json={"reason": "a password"})).is_success
        assert (await admin.get(f"{API}/audit/{row['id']}")).json()["data"]["content"] is None
        shown = (await client(team.observer).get(f"{API}/decisions/{decision}")).json()["data"]
        assert shown["explanation"] == said


async def test_verifying_leaves_the_loop_to_others(
    client: Caller, team: Team, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, take = set(), Verifier.take

    def seen(verifier: Verifier, line: str) -> bool:
        where.add(threading.get_ident())
        return take(verifier, line)

    monkeypatch.setattr(Verifier, "take", seen)
    await act(db, team.workspace_id)
    assert (await client(team.operator).get(f"{API}/audit/verify")).json()["data"]["unsealed"] == 1
    assert threading.get_ident() not in where


class TestExport:
    async def test_it_proves_its_rows_and_shows_nothing_of_others(
        self, client: Caller, team: Team, other_team: Team, db: Database, service_key: ServiceKey
    ) -> None:
        sealer = Sealer(db, service_key)
        for turn in range(40):
            await act(db, team.workspace_id, 9, text=ODD)
            await act(db, other_team.workspace_id, 30 if turn == 20 else 5, text="their secret")
            if turn % 3 == 0:
                await sealer.seal()
        await act(db, other_team.workspace_id, 600)
        await sealer.seal()
        await act(db, team.workspace_id, 2)
        answer = await client(team.admin).get(f"{API}/audit/export")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = answer.text.rstrip("\n").split("\n")
        verdict = judged(lines, service_key)
        assert (verdict.rows, verdict.unsealed, verdict.problem) == (360, 2, None)
        assert verdict.size == 360 + 39 * 5 + 30 + 600
        for trace in (other_team.workspace_id, "their secret"):
            assert trace not in answer.text
        assert len(lines) < 360 + 40 * 20

    async def test_it_has_every_row_that_the_database_has(
        self, api: httpx2.AsyncClient, team: Team, other_team: Team, db: Database, service_key: ServiceKey
    ) -> None:
        for count in (30, 1, 250):
            await act(db, team.workspace_id, count)
            await act(db, other_team.workspace_id, 9)
            await Sealer(db, service_key).seal()
        await act(db, team.workspace_id, 4)
        lines = (await api.get(f"{API}/audit/export")).text.rstrip("\n").split("\n")
        found = [entry["id"] for entry in map(json.loads, lines) if entry["kind"] in ("row", "unsealed")]
        async with db.workspace(team.workspace_id) as session:
            there = list(await session.scalars(text("SELECT id FROM audit")))
        assert len(found) == len(there) == 285
        assert set(found) == set(there)

    async def test_an_empty_log_is_good(self, api: httpx2.AsyncClient, service_key: ServiceKey) -> None:
        lines = (await api.get(f"{API}/audit/export")).text.rstrip("\n").split("\n")
        verdict = judged(lines, service_key)
        assert (len(lines), verdict.rows, verdict.problem) == (2, 0, None)


class TestProofs:
    async def test_hold_for_who_has_nothing_but_the_key(
        self, api: httpx2.AsyncClient, team: Team, other_team: Team, db: Database, service_key: ServiceKey
    ) -> None:
        for _ in range(30):
            await act(db, team.workspace_id, 3)
            await act(db, other_team.workspace_id, 4)
            await Sealer(db, service_key).seal()
        public = [raw_key(service_key.public_openssh)]
        for row in (await listed(api, limit=200))[::9]:
            proof = (await api.get(row["links"]["proof"])).json()["data"]
            signed = checkpoints.verify(proof["checkpoint"], public)
            leaf, hashes = leaf_of(proof["row"]), [bytes.fromhex(found) for found in proof["hashes"]]
            assert leaf.hex() == proof["leaf"]
            assert proof["row"]["digest"] == row["digest"]
            assert proves_inclusion(leaf, proof["leaf_index"], signed.size, hashes, signed.root)
            assert proof["key_id"] == service_key.key_id
        notes = (await api.get(f"{API}/audit/checkpoints?sort=size&limit=200")).json()["data"]["items"]
        grown = [checkpoints.verify(note["note"], public) for note in notes]
        last = grown[-1]
        assert [one.size for one in grown] == [7 * n for n in range(1, 31)]
        for old in grown[::4]:
            answer = await api.get(f"{API}/audit/consistency?from={old.size}&to={last.size}")
            hashes = [bytes.fromhex(found) for found in answer.json()["data"]["hashes"]]
            assert proves_consistency(old.size, last.size, old.root, last.root, hashes)

    async def test_of_trees_that_never_were_are_refused(self, api: httpx2.AsyncClient) -> None:
        for query in ("from=0&to=1", "from=1&to=0"):
            assert refusal(await api.get(f"{API}/audit/consistency?{query}")) == (422, "no_such_tree")
        assert refusal(await api.get(f"{API}/audit/consistency?from=-1&to=0"))[0] == 422


class TestVerify:
    async def test_the_server_verifies_with_all_keys_that_it_ever_had(
        self, api: httpx2.AsyncClient, team: Team, db: Database, tmp_path: Path
    ) -> None:
        for number in range(3):
            key = ServiceKey.load_or_create(tmp_path / f"key{number}")
            async with db.system() as session:
                await signing_keys.publish(session, key.key_id, key.public_openssh, Actor("worker", "test"))
            await act(db, team.workspace_id, 4)
            await Sealer(db, key).seal()
        found = (await api.get(f"{API}/audit/verify")).json()["data"]
        assert (found["good"], found["rows"], found["checkpoints"]) == (True, 15, 3)

    async def test_a_stranger_s_signature_is_told(
        self, api: httpx2.AsyncClient, team: Team, db: Database, service_key: ServiceKey
    ) -> None:
        await act(db, team.workspace_id, 4)
        await Sealer(db, service_key).seal()
        found = (await api.get(f"{API}/audit/verify")).json()["data"]
        assert (found["good"], found["problem"]["code"]) == (False, "checkpoint_unsigned")

    async def test_it_is_done_once_at_a_time_for_a_key(self, client: Caller, team: Team, address: str) -> None:
        asked = ("audit/verify", "policy/try")
        headers = {"X-API-Key": team.operator}
        async with httpx2.AsyncClient(base_url=f"{address}{API}/", headers=headers, timeout=60) as api:
            assert (await api.get("policy")).status_code == 200
            for path in asked:
                body = {"version": 1} if path == "policy/try" else None
                method = "POST" if body else "GET"
                answers = await asyncio.gather(*(api.request(method, path, json=body) for _ in range(20)))
                codes = {answer.json().get("error", {}).get("code") for answer in answers}
                assert codes == {None, "one_at_a_time"}, path
                assert {answer.headers.get("retry-after") for answer in answers} == {None, "5"}

    async def test_what_has_no_sealed_row_is_not_good(self, api: httpx2.AsyncClient, team: Team, db: Database) -> None:
        await act(db, team.workspace_id, 4)
        found = (await api.get(f"{API}/audit/verify")).json()["data"]
        assert (found["good"], found["unsealed"], found["problem"]["code"]) == (False, 4, "nothing_to_verify")

    @pytest.mark.parametrize("words", ["no JSON", "[1]", '"text"', "[" * 100_000, '{"a": "\\ud800"}'])
    async def test_a_row_that_somebody_made_unreadable_is_shown_as_it_is(
        self, api: httpx2.AsyncClient, team: Team, db: Database, service_key: ServiceKey, database_url: str, words: str
    ) -> None:
        await act(db, team.workspace_id, 2)
        await Sealer(db, service_key).seal()
        as_superuser(database_url, f"UPDATE audit SET content = '{words}'")  # noqa: S608  # a test's own
        answer = await api.get(f"{API}/audit")
        assert answer.status_code == 200, answer.text
        assert {row["content"]["unreadable"] for row in answer.json()["data"]["items"]} == {words}
        found = (await api.get(f"{API}/audit/verify")).json()["data"]
        assert (found["good"], found["problem"]["code"]) == (False, "content_changed")

    @pytest.mark.parametrize("record", ["null", "[]", '{"evidence": "a"}', '{"evidence": [1]}', '{"evidence": []}'])
    async def test_nor_does_a_row_lead_anywhere_that_somebody_made_up(
        self, api: httpx2.AsyncClient, team: Team, db: Database, database_url: str, record: str
    ) -> None:
        await act(db, team.workspace_id)
        made_up = f'{{"record": {record}, "stage": "run_tests"}}'
        as_superuser(database_url, f"UPDATE audit SET content = '{made_up}'")  # noqa: S608  # a test's own
        [row] = await listed(api)
        assert set(row["links"]) == {"self", "proof", "mission", "evidence"}


async def test_the_delay_is_a_metric(
    api: httpx2.AsyncClient, team: Team, db: Database, service_key: ServiceKey
) -> None:
    await act(db, team.workspace_id, 4)
    await Sealer(db, service_key).seal()
    await act(db, team.workspace_id)
    lines = (await api.get("/metrics")).text.splitlines()
    shown = dict(line.rsplit(" ", 1) for line in lines if line.startswith("mission_control_audit"))
    assert float(shown["mission_control_audit_sealed_rows"]) == 4
    assert float(shown["mission_control_audit_unsealed_seconds"]) > 0
