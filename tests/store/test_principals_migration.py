"""Keys that were made before principals had rows go on opening what they opened."""

from typing import Any

from sqlalchemy import create_engine, text

from models.store.migrate import expected_revision, migrate
from tests.fixtures.servers import PostgresServer

OLD_KEYS = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('default', 'default', 'Default'), ('other', 'other', 'Other');
INSERT INTO api_key (workspace_id, key_id, digest, principal, kind, role, created_by, created_at) VALUES
    ('default', 'k1', 'd1', 'admin', 'human', 'admin', 'first-start', '2026-01-01'),
    ('default', 'k2', 'd2', 'admin', 'human', 'observer', 'admin', '2026-01-02'),
    ('default', 'k3', 'd3', 'olga', 'human', 'operator', 'admin', '2026-01-03'),
    ('default', 'k4', 'd4', 'olga', 'human', 'operator', 'admin', '2026-01-04'),
    ('default', 'k5', 'd5', 'probe', 'agent', 'agent', 'admin', '2026-01-05'),
    ('other', 'k6', 'd6', 'admin', 'human', 'admin', 'admin', '2026-01-06');
"""


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        found = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return found


def test_each_key_keeps_its_rights(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0007")
    rows(url, OLD_KEYS)
    assert migrate(url) == expected_revision()
    assert rows(url, "SELECT key_id, principal, role FROM api_key ORDER BY key_id") == [
        ("k1", "admin", "platform_admin"),
        ("k2", "admin.observer", "observer"),
        ("k3", "olga", "operator"),
        ("k4", "olga", "operator"),
        ("k5", "probe", "agent"),
        ("k6", "admin", "admin"),
    ]
    assert rows(url, "SELECT name, registration, status, last_heartbeat_at FROM agent") == [
        ("probe", "approved", "active", None)
    ]
    assert rows(url, "SELECT count(*) FROM principal") == [(5,)]
