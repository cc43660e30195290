"""Keys that were made before principals had rows go on opening what they opened."""

import pytest
from sqlalchemy import create_engine, text

from models.domain.names import clean_name
from models.store.migrate import expected_revision, migrate
from tests.fixtures.servers import PostgresServer
from tests.fixtures.sql import rows

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


ROTATED_KEYS = """
INSERT INTO workspace (workspace_id, slug, name) VALUES ('a', 'a', 'A'), ('b', 'b', 'B');
INSERT INTO principal (workspace_id, name, kind, role, created_by)
SELECT place, 'olga', 'human', 'admin', 'x' FROM unnest(ARRAY['a', 'b']) place;
INSERT INTO api_key (workspace_id, key_id, digest, principal, kind, role, rotated_to) VALUES
    ('a', 'k1', 'd1', 'olga', 'human', 'admin', 'k3'), ('a', 'k2', 'd2', 'olga', 'human', 'admin', NULL),
    ('a', 'k3', 'd3', 'olga', 'human', 'admin', 'k4'), ('a', 'k4', 'd4', 'olga', 'human', 'admin', NULL),
    ('b', 'k3', 'd5', 'olga', 'human', 'admin', NULL);
"""


def test_keys_know_what_they_were_rotated_from(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrate(url, "0013")
    rows(url, ROTATED_KEYS)
    migrate(url)
    found = rows(url, "SELECT workspace_id || key_id, lineage FROM api_key ORDER BY 1")
    assert found == [("ak1", "k1"), ("ak2", "k2"), ("ak3", "k1"), ("ak4", "k1"), ("bk3", "k3")]


@pytest.mark.parametrize(
    ("owners", "names"),
    [
        (
            [("olga", "operator"), ("olga", "observer"), ("olga.observer", "admin")],
            ["olga", "olga.observer.2", "olga.observer"],
        ),
        ([("ci/main", "operator"), ("ci/main", "admin")], ["old.ci.main", "old.ci.main.admin"]),
        ([("worker", "operator"), ("old.worker", "observer")], ["old.worker.2", "old.worker"]),
        ([("\nolga", "admin"), ("olga", "admin")], ["olga.2", "olga"]),
        ([("\nolga", "admin"), ("olga", "observer"), (" olga", "member")], ["olga.2", "olga", "olga.3"]),
        ([("agent_0123456789abcdef", "admin")], ["old.agent_0123456789abcdef"]),
        ([("x" * 256, "admin"), ("x" * 256, "observer")], ["old." + "x" * 100, "old." + "x" * 96 + ".observer"]),
        ([("a\u200bb", "admin"), (" ", "admin"), ("\ufdfa" * 40, "member")], None),
    ],
)
def test_each_owner_gets_a_name_of_its_own_that_may_be_said(
    postgres_server: PostgresServer, owners: list[tuple[str, str]], names: list[str] | None
) -> None:
    """Names could be anything once; whose is fine keeps it, whoever else would be called so."""
    url = postgres_server.create_database()
    migrate(url, "0007")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO workspace (workspace_id, slug, name) VALUES ('w', 'w', 'W')"))
        for number, (principal, role) in enumerate(owners):
            connection.execute(
                text(
                    "INSERT INTO api_key (workspace_id, key_id, digest, principal, kind, role, created_by, created_at)"
                    " VALUES ('w', :key, :key, :principal, 'human', :role, 'x', now() + make_interval(secs => :number))"
                ),
                {"key": f"k{number}", "principal": principal, "role": role, "number": number},
            )
    engine.dispose()
    migrate(url)
    found = rows(url, "SELECT name, p.role FROM api_key JOIN principal p ON principal = name ORDER BY key_id")
    assert [role for _, role in found] == [role for _, role in owners]
    assert len({name for name, _ in found}) == len(owners)
    assert [clean_name(name) for name, _ in found] == [name for name, _ in found]
    assert names is None or [name for name, _ in found] == names
