"""The audit log in Postgres: written with each act, changed by nobody, sealed in the order of facts, proved."""

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit import content_digest, leaf_of
from models.domain.checkpoints import raw_key
from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.events import NO_ACTS, EventType, Subject
from models.domain.merkle import Frontier, leaf_hash
from models.domain.names import SYSTEM_NAMES
from models.settings import Settings
from models.store import audit, audit_tree, events
from models.store.audit_tree import Signer
from models.store.connections import plain
from models.store.database import Database
from models.store.events import Actor
from models.store.migrate import migrate
from tests.fixtures.api import Team, make_team
from tests.fixtures.audit import ODD, OLGA, act, exported, filled, fresh_log, judged, key
from tests.fixtures.proofs import proves_consistency, proves_inclusion

__all__ = ["fresh_log", "key"]


def rows(url: str, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Ask, or do, as the superuser."""
    with psycopg.connect(plain(url), row_factory=dict_row, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


AUDIT = "SELECT * FROM audit ORDER BY id"


class TestWriting:
    async def test_an_act_and_its_row_are_one_transaction(self, db: Database, team: Team, database_url: str) -> None:
        async with db.workspace(team.workspace_id) as session:
            about = Subject(kind="capa", id="c")
            await events.append(session, team.workspace_id, EventType.CAPA_CREATED, about, OLGA)
            await session.rollback()
        assert rows(database_url, AUDIT) == []
        await act(db, team.workspace_id, text=ODD)
        [row] = rows(database_url, AUDIT)
        [event] = rows(database_url, "SELECT * FROM event")
        shared = ("workspace_id", "id", "xid", "epoch", "actor", "subject_kind", "subject_id", "correlation_id")
        assert {name: row[name] for name in shared} == {name: event[name] for name in shared}
        assert row["action"] == "mission.noted"
        assert json.loads(row["content"]) == {"n": 0, "detail": ODD} == event["data"]
        assert row["digest"] == content_digest(row["salt"], row["content"])
        assert len(row["salt"]) == 32

    async def test_equal_acts_have_other_digests(self, db: Database, team: Team, database_url: str) -> None:
        for _ in range(2):
            await act(db, team.workspace_id, 2)
        assert len({row["digest"] for row in rows(database_url, AUDIT)}) == 4

    async def test_it_knows_what_the_actor_is(self, db: Database, team: Team, database_url: str) -> None:
        for name in ("operator", "agent", "service", "worker", "reconciler", "nobody"):
            async with db.workspace(team.workspace_id) as session:
                about = Subject(kind="capa", id=name)
                await events.append(session, team.workspace_id, EventType.CAPA_CHANGED, about, Actor(name, "r"))
        found = {row["actor"]: row["actor_kind"] for row in rows(database_url, AUDIT)}
        assert found == {
            "operator": "human",
            "agent": "agent",
            "service": "service",
            "worker": "system",
            "reconciler": "system",
            "nobody": "unknown",
        }

    async def test_what_anybody_may_report_is_no_act(self, db: Database, team: Team, database_url: str) -> None:
        for kind in (EventType.SUBSYSTEM_REPORT, EventType.SUBSYSTEM_ERROR, EventType.METRIC_OBSERVED):
            async with db.workspace(team.workspace_id) as session:
                await events.append(session, team.workspace_id, kind, Subject(kind="subsystem", id="s"), OLGA)
        assert rows(database_url, AUDIT) == []

    @pytest.mark.parametrize("name", sorted(SYSTEM_NAMES))
    async def test_each_part_of_the_product_is_one_of_the_system(
        self, db: Database, team: Team, database_url: str, name: str
    ) -> None:
        async with db.workspace(team.workspace_id) as session:
            about = Subject(kind="capa", id="c")
            await events.append(session, team.workspace_id, EventType.CAPA_CREATED, about, Actor(name, "r"))
        assert [(row["actor"], row["actor_kind"]) for row in rows(database_url, AUDIT)] == [(name, "system")]

    async def test_each_type_of_event_is_an_act_or_none(self, db: Database, team: Team, database_url: str) -> None:
        async with db.workspace(team.workspace_id) as session:
            for kind in EventType:
                await events.append(session, team.workspace_id, kind, Subject(kind="capa", id="c"), OLGA)
        assert {row["action"] for row in rows(database_url, AUDIT)} == set(EventType) - NO_ACTS

    async def test_an_event_cannot_choose_its_row_s_place_or_time(
        self, db: Database, team: Team, database_url: str
    ) -> None:
        async with db.workspace(team.workspace_id) as session:
            await session.execute(
                text(
                    "INSERT INTO event (epoch, xid, occurred_at, workspace_id, type, subject_kind, subject_id, actor,"
                    " correlation_id) VALUES (0, '3', now() - interval '1 year', :w, 'capa.changed', 'capa', 'c',"
                    " 'olga', 'r')"
                ),
                {"w": team.workspace_id},
            )
        [row] = rows(database_url, "SELECT *, mc_epoch() AS now, now() - created_at AS age FROM audit")
        assert (row["epoch"], int(row["xid"]) > 3, row["age"] < timedelta(hours=1)) == (row["now"], True, True)

    async def test_the_console_s_view_has_its_columns(self, db: Database, team: Team) -> None:
        async with db.workspace(team.workspace_id) as session:
            about, data = Subject(kind="session", id="s1"), {"content": "stop", "provider": "acp"}
            await events.append(
                session, team.workspace_id, EventType.SESSION_CLOSED, about, Actor("operator", "r"), data
            )
            found = (await session.execute(text("SELECT * FROM operator_audit_log"))).mappings().one()
        assert (found["user_id"], found["session_id"], found["provider"]) == ("operator", "s1", "acp")
        assert (found["content"], found["metadata"]) == ("stop", data)


CHANGES = [
    "UPDATE audit SET actor = 'mallory'",
    "UPDATE audit SET content = '{}'",
    "UPDATE audit SET content = NULL, salt = NULL, actor = 'mallory'",
    "UPDATE audit SET salt = NULL",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "UPDATE audit_leaf SET leaf = ''",
    "DELETE FROM audit_leaf",
    "TRUNCATE audit_leaf",
    "DELETE FROM audit_node",
    "UPDATE audit_checkpoint SET note = ''",
    "TRUNCATE audit_checkpoint",
    "DELETE FROM audit_mirrored",
]
FORGERY = (
    "INSERT INTO audit (workspace_id, id, actor, actor_kind, action, subject_kind, subject_id, correlation_id, digest)"
    " VALUES (current_setting('app.workspace', true), 1, 'olga', 'human', 'capa.changed', 'capa', 'c', 'r', '')"
)


class TestNobodyChangesIt:
    @pytest.mark.parametrize("role", ["mission_control_owner", "mission_control_app", "mission_control_system"])
    async def test_whoever_asks(self, db: Database, team: Team, key: ServiceKey, database_url: str, role: str) -> None:
        await filled(db, key, [team.workspace_id], 300, each=150)
        before = rows(database_url, AUDIT)
        for statement in CHANGES:
            as_role = f"SET ROLE {role}; SET app.workspace = '{team.workspace_id}'; {statement}"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                rows(database_url, as_role)
        assert rows(database_url, AUDIT) == before
        assert judged(await exported(db, team.workspace_id), key).is_good

    @pytest.mark.parametrize("role", ["mission_control_app", "mission_control_system"])
    async def test_nobody_writes_a_row_without_an_act(self, team: Team, database_url: str, role: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(database_url, f"SET ROLE {role}; SET app.workspace = '{team.workspace_id}'; {FORGERY}")

    async def test_another_workspace_sees_no_row_and_no_leaf(self, db: Database, team: Team, key: ServiceKey) -> None:
        other = await make_team(db)
        await filled(db, key, [team.workspace_id], 3)
        for table in ("audit", "audit_leaf", "operator_audit_log"):
            async with db.workspace(other.workspace_id) as session:
                assert (await session.execute(text(f"SELECT 1 FROM {table}"))).all() == []  # noqa: S608  # of ours


class TestSealing:
    async def test_rows_get_their_leaves_in_the_order_of_facts(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        other = await make_team(db)
        await filled(db, key, [team.workspace_id, other.workspace_id], 700, each=9)
        found = rows(
            database_url,
            "SELECT a.*, l.tree_index, l.seq, l.leaf, to_char(a.created_at AT TIME ZONE 'UTC',"
            ' \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\') AS at FROM audit a JOIN audit_leaf l USING (workspace_id, id)'
            " ORDER BY a.epoch, a.xid, a.id",
        )
        tree, counted = Frontier(), dict[str, int]()
        for index, row in enumerate(found):
            counted[row["workspace_id"]] = counted.get(row["workspace_id"], 0) + 1
            assert (row["tree_index"], row["seq"]) == (index, counted[row["workspace_id"]])
            assert leaf_of(row | {"digest": row["digest"].hex()}) == row["leaf"]
            tree.add(row["leaf"])
        [last] = rows(database_url, "SELECT * FROM audit_checkpoint ORDER BY size DESC LIMIT 1")
        checkpoint = checkpoints.verify(last["note"], [raw_key(key.public_openssh)])
        assert (checkpoint.size, checkpoint.root) == (700, tree.root)
        assert len(rows(database_url, "SELECT 1 FROM audit_node")) == 2

    async def test_what_may_still_be_preceded_waits(self, db: Database, team: Team, key: ServiceKey) -> None:
        sealer = Sealer(db, key)
        await act(db, team.workspace_id)
        async with db.workspace(team.workspace_id) as older:
            about = Subject(kind="capa", id="c")
            await events.append(older, team.workspace_id, EventType.CAPA_CREATED, about, OLGA)
            await act(db, team.workspace_id)
            assert await sealer.seal() == 1
        assert await sealer.seal() == 2
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.problem) == (3, None)

    async def test_a_restored_dump_goes_on_where_it_stood(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        await filled(db, key, [team.workspace_id], 10)
        rows(database_url, "UPDATE installation SET system_identifier = 'another cluster'")
        migrate(database_url)
        await filled(db, key, [team.workspace_id], 10)
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.size, verdict.problem) == (20, 20, None)

    async def test_several_sealers_seal_each_row_once(
        self, db: Database, team: Team, key: ServiceKey, settings: Settings
    ) -> None:
        others = [Database.from_settings(settings) for _ in range(3)]
        sealers = [Sealer(one, key, batch=5) for one in (db, *others)]
        for _ in range(10):
            await asyncio.gather(act(db, team.workspace_id, 12), *(sealer.seal() for sealer in sealers))
        await sealers[0].seal()
        for one in others:
            await one.close()
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.size, verdict.problem) == (120, 120, None)

    async def test_batches_make_no_difference_to_the_tree(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        await act(db, team.workspace_id, 900)
        await Sealer(db, key, batch=37).seal()
        leaves = [row["leaf"] for row in rows(database_url, "SELECT leaf FROM audit_leaf ORDER BY tree_index")]
        tree = Frontier()
        for leaf in leaves:
            tree.add(leaf)
        async with db.system() as session:
            last = await audit_tree.latest(session)
        assert last
        assert checkpoints.read(last.note).root == tree.root
        assert len(rows(database_url, "SELECT 1 FROM audit_checkpoint")) == 25

    async def test_nothing_is_signed_over_a_broken_tree(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        await filled(db, key, [team.workspace_id], 10)
        rows(database_url, "SET session_replication_role = replica; UPDATE audit_leaf SET leaf = sha256('x')")
        await act(db, team.workspace_id)
        with pytest.raises(Conflict, match="not that of its checkpoint 10"):
            await Sealer(db, key).seal()
        assert len(rows(database_url, "SELECT 1 FROM audit_leaf")) == 10

    async def test_a_failure_before_the_end_leaves_nothing(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        def broken(_: bytes) -> bytes:
            raise OSError("the key is gone")

        await act(db, team.workspace_id, 300)
        with pytest.raises(OSError, match="the key is gone"):
            async with db.system() as session:
                await audit_tree.seal(session, Signer("k", raw_key(key.public_openssh), broken))
        for left in ("SELECT 1 FROM audit_leaf", "SELECT 1 FROM audit_node", "SELECT 1 FROM audit_checkpoint"):
            assert rows(database_url, left) == []
        assert await Sealer(db, key).seal() == 300

    async def test_the_delay_is_known(self, db: Database, team: Team, key: ServiceKey) -> None:
        async def standing() -> audit_tree.Standing:
            async with db.system() as session:
                return await audit_tree.standing(session)

        assert (await standing()).unsealed_seconds == 0
        await act(db, team.workspace_id, 3)
        assert (await standing()).unsealed_seconds > 0
        await Sealer(db, key).seal()
        assert await standing() == audit_tree.Standing(sealed=3, mirrored=0, unsealed_seconds=0)


class TestProofs:
    async def test_every_row_is_proved_and_every_growth(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        other = await make_team(db)
        await filled(db, key, [team.workspace_id, other.workspace_id], 600, each=50)
        own = rows(database_url, "SELECT id FROM audit WHERE workspace_id = %s", team.workspace_id)
        signed = rows(database_url, "SELECT size, note FROM audit_checkpoint ORDER BY size")
        last = checkpoints.read(signed[-1]["note"])
        assert len(own) == 300
        for row in own[::7]:
            async with db.workspace(team.workspace_id) as session:
                committed, leaf = await audit.require_sealed(session, team.workspace_id, row["id"])
            async with db.system() as session:
                proof = await audit_tree.inclusion_proof(session, leaf, last.size)
            assert proves_inclusion(leaf_of(committed), leaf.tree_index, last.size, proof, last.root)
        for before, after in pairwise(signed):
            async with db.system() as session:
                proof = await audit_tree.consistency_proof(session, before["size"], after["size"])
            old, new = checkpoints.read(before["note"]), checkpoints.read(after["note"])
            assert proves_consistency(old.size, new.size, old.root, new.root, proof)
        async with db.system() as session:
            with pytest.raises(InvalidInput, match="the size that is sealed"):
                await audit_tree.consistency_proof(session, 10, 601)

    async def test_what_is_not_sealed_is_not_proved_yet(self, db: Database, team: Team, database_url: str) -> None:
        await act(db, team.workspace_id)
        [row] = rows(database_url, AUDIT)
        async with db.workspace(team.workspace_id) as session:
            with pytest.raises(Conflict, match="not sealed yet"):
                await audit.require_sealed(session, team.workspace_id, row["id"])
            with pytest.raises(NotFound):
                await audit.require_sealed(session, team.workspace_id, row["id"] + 1)


class TestRedaction:
    async def test_it_takes_the_content_tells_so_and_proofs_hold(
        self, db: Database, team: Team, key: ServiceKey, database_url: str
    ) -> None:
        await act(db, team.workspace_id, 5, text="the password is swordfish")
        await Sealer(db, key).seal()
        secret = rows(database_url, AUDIT)[2]
        async with db.workspace(team.workspace_id) as session:
            redacted = await audit.redact(session, team.workspace_id, secret["id"], "a secret", OLGA)
        assert (redacted.content, redacted.salt, redacted.digest) == (None, None, secret["digest"])
        problem = judged(await exported(db, team.workspace_id), key).problem
        assert problem
        assert (problem.code, problem.row) == ("redaction_unsealed", secret["id"])
        assert "export again once the worker has sealed it" in problem.message
        await Sealer(db, key).seal()
        verdict = judged(await exported(db, team.workspace_id), key)
        assert (verdict.rows, verdict.redacted, verdict.problem) == (6, 1, None)
        told = rows(database_url, AUDIT)[-1]
        assert (told["action"], told["actor"], told["subject_id"]) == ("audit.redacted", "olga", str(secret["id"]))
        assert json.loads(told["content"]) == {"reason": "a secret"}
        async with db.workspace(team.workspace_id) as session:
            with pytest.raises(Conflict, match="gone already"):
                await audit.redact(session, team.workspace_id, secret["id"], "again", OLGA)

    async def test_another_workspace_s_row_is_not_there(self, db: Database, team: Team, database_url: str) -> None:
        other = await make_team(db)
        await act(db, team.workspace_id)
        [row] = rows(database_url, AUDIT)
        async with db.workspace(other.workspace_id) as session:
            with pytest.raises(NotFound):
                await audit.redact(session, other.workspace_id, row["id"], "mine", OLGA)
            call = text("SELECT mc_redact_audit(:id, 'mallory', 'r', 'mine')")
            assert (await session.execute(call, {"id": row["id"]})).scalar() is False
        assert rows(database_url, AUDIT) == [row]


async def test_a_statement_that_fails_is_no_part_of_the_log(db: Database, team: Team, database_url: str) -> None:
    with pytest.raises(DBAPIError):
        await db.alone(
            team.workspace_id,
            "INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)"
            " SELECT %(w)s, 'capa.changed', 'capa', 'c', 'olga', 'r', '{}' FROM generate_series(1, 3)"
            " RETURNING 1 / (id - id)",
            {"w": team.workspace_id},
        )
    assert rows(database_url, AUDIT) == []


def test_a_leaf_is_a_hash_of_its_fields() -> None:
    row = dict.fromkeys(("git_sha", "config_hash")) | {
        "workspace_id": "w", "seq": 1, "id": 2, "epoch": 1, "xid": "700", "at": "2026-01-02T03:04:05.000006Z",
        "actor": "olga", "actor_kind": "human", "action": "capa.changed", "subject_kind": "capa", "subject_id": "c",
        "correlation_id": "r", "digest": "00",
    }  # fmt: skip
    told = (
        '["w", 1, 2, 1, "700", "2026-01-02T03:04:05.000006Z", "olga", "human", "capa.changed", "capa", "c", "r",'
        ' null, null, "00"]'
    )
    assert leaf_of(row) == leaf_hash(told.encode())
