"""What agents did and called before there was activity is theirs all the same, and the sealed log stays as it was."""

from models.store.migrate import expected_revision, migrate
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows

PAST = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('w', 'w', 'W');
INSERT INTO principal (workspace_id, name, kind, role, created_by)
    VALUES ('w', 'bot', 'agent', 'agent', 'admin'), ('w', 'ci', 'service', 'service', 'admin');
INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data) VALUES
    ('w', 'run.started', 'run', 'run_1', 'ci', 'r', '{"agent_id": "bot"}'),
    ('w', 'run.ended', 'run', 'run_2', 'bot', 'r', '{"status": "failed"}'),
    ('w', 'mission.created', 'mission', 'm', 'ci', 'r', '{"agent_id": "bot"}'),
    ('w', 'mission.resolved', 'mission', 'm', 'worker', 'r', '{}');
INSERT INTO run (workspace_id, run_id, created_by) VALUES ('w', 'run_1', 'ci');
INSERT INTO tool_call (workspace_id, run_id, number, tool, error) VALUES
    ('w', 'run_1', 1, 'grep', NULL), ('w', 'run_1', 2, 'grep', 'E1');
"""
LEAVES = "SELECT id, encode(mc_audit_leaf(audit, 1), 'hex') FROM audit ORDER BY id"


def test_up_and_down_with_a_past(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0013")
    rows(url, PAST)
    leaves = rows(url, LEAVES)
    assert migrate(url) == expected_revision()
    assert rows(url, "SELECT agent_id, action, status, metadata FROM activity ORDER BY id") == [
        ("bot", "run.started", "success", {"agent_id": "bot"}),
        ("bot", "run.ended", "failed", {"status": "failed"}),
    ]
    assert rows(url, "SELECT number, ended_at = at, refused, digest FROM tool_call ORDER BY number") == [
        (1, True, None, None),
        (2, True, None, None),
    ]
    assert rows(url, LEAVES) == leaves
    assert len(leaves) == 4
    migrate(url, "0013")
    assert rows(url, LEAVES) == leaves
    assert rows(url, "SELECT count(*) FROM tool_call") == [(2,)]
