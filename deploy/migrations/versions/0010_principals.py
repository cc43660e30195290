"""Principals, agents and workspaces as rows of their own; a key's kind and role are those of its owner."""

import unicodedata
from contextlib import suppress
from itertools import chain, count
from operator import itemgetter

from alembic import op

from models.domain.names import clean_name, is_seen

revision = "0010"
down_revision = "0009"

_TABLES = """
CREATE TABLE principal (
    workspace_id text NOT NULL REFERENCES workspace,
    name text NOT NULL,
    kind text NOT NULL,
    role text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    deactivated_at timestamptz,
    PRIMARY KEY (workspace_id, name),
    UNIQUE (workspace_id, name, kind, role),
    CHECK (kind IN ('human', 'agent', 'service'))
);
CREATE INDEX principal_by_age ON principal (workspace_id, created_at, name);

CREATE TABLE agent (
    workspace_id text NOT NULL REFERENCES workspace,
    agent_id text NOT NULL,
    name text NOT NULL,
    registration text NOT NULL,
    status text,
    level text DEFAULT 'intern' NOT NULL,
    endpoint text,
    capabilities jsonb DEFAULT '[]' NOT NULL,
    token_digest text,
    requested_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    decided_by text,
    decided_at timestamptz,
    key_fetched_at timestamptz,
    last_heartbeat_at timestamptz,
    silence text DEFAULT 'none' NOT NULL,
    PRIMARY KEY (workspace_id, agent_id),
    UNIQUE (token_digest),
    CHECK ((status IS NULL) = (registration IN ('pending', 'rejected')))
);
CREATE UNIQUE INDEX agent_name ON agent (workspace_id, name) WHERE registration <> 'rejected';
CREATE INDEX agent_by_age ON agent (workspace_id, created_at, agent_id);
CREATE INDEX agent_by_heartbeat ON agent (last_heartbeat_at) WHERE status = 'active';

ALTER TABLE workspace ADD COLUMN mission_statement text DEFAULT '' NOT NULL, ADD COLUMN emoji text DEFAULT '' NOT NULL,
    ADD COLUMN color text DEFAULT '' NOT NULL, ADD COLUMN founder text DEFAULT '' NOT NULL;
ALTER TABLE installation ADD COLUMN default_workspace text DEFAULT 'default' NOT NULL;
ALTER TABLE api_key ADD COLUMN rate_per_minute integer;
"""

_OWNERS = """
SELECT workspace_id, principal, role, array_agg(key_id) FROM api_key
GROUP BY workspace_id, principal, kind, role ORDER BY min(created_at), min(key_id)
"""
_RENAME = "UPDATE api_key SET principal = %s WHERE workspace_id = %s AND key_id = ANY (%s)"
_FILL = """
UPDATE api_key SET role = 'platform_admin'
WHERE workspace_id = 'default' AND principal = 'admin' AND role = 'admin' AND created_by = 'first-start';
UPDATE api_key SET role = 'platform_admin'
WHERE role = 'admin' AND (workspace_id, principal) IN (
    SELECT workspace_id, principal FROM api_key WHERE role = 'platform_admin');
INSERT INTO principal (workspace_id, name, kind, role, created_by, created_at)
SELECT DISTINCT ON (workspace_id, principal) workspace_id, principal, kind, role, created_by, created_at
FROM api_key ORDER BY workspace_id, principal, created_at, key_id;
INSERT INTO agent (workspace_id, agent_id, name, registration, status, requested_by, created_at, decided_by, decided_at)
SELECT workspace_id, 'agent_' || left(md5(workspace_id || '/' || name), 16), name, 'approved', 'active', name,
    created_at, created_by, created_at
FROM principal WHERE kind = 'agent';

ALTER TABLE api_key ADD CONSTRAINT api_key_owner FOREIGN KEY (workspace_id, principal, kind, role)
    REFERENCES principal (workspace_id, name, kind, role) ON UPDATE CASCADE;
CREATE INDEX api_key_owner ON api_key (workspace_id, principal);
"""

# Facts name a platform admin who visits by his own workspace and name, with a slash between them.
_KINDS = """
CREATE OR REPLACE FUNCTION mc_kind_of(workspace text, who text) RETURNS text LANGUAGE sql STABLE
SET search_path = public AS $$
    SELECT kind FROM principal WHERE workspace_id = CASE WHEN who LIKE '%/%' THEN split_part(who, '/', 1)
    ELSE workspace END AND name = CASE WHEN who LIKE '%/%' THEN split_part(who, '/', 2) ELSE who END
$$;
"""

_KINDS_BY_KEYS = """
CREATE OR REPLACE FUNCTION mc_kind_of(workspace text, who text) RETURNS text LANGUAGE sql STABLE
SET search_path = public AS $$
    SELECT kind FROM api_key WHERE workspace_id = workspace AND principal = who ORDER BY created_at DESC LIMIT 1
$$;
"""

_CLOSE = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON {table} TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON {table} TO mission_control_system, mission_control_owner
    USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON {table} TO mission_control_app, mission_control_system;
"""


def upgrade() -> None:
    """Make the tables, fill them from the keys that there are, and let each workspace see its own."""
    closed = "".join(_CLOSE.format(table=table) for table in ("principal", "agent"))
    _run(f"SET ROLE mission_control_owner; {_TABLES}")
    _rename_owners()
    _run(f"{_FILL} {_KINDS} {closed}")
    _run("GRANT UPDATE ON workspace TO mission_control_app; RESET ROLE")


def downgrade() -> None:
    """Take them away; platform admins are admins again."""
    _run(f"SET ROLE mission_control_owner; {_KINDS_BY_KEYS}")
    _run(
        "REVOKE UPDATE ON workspace FROM mission_control_app;"
        "DROP INDEX api_key_owner; ALTER TABLE api_key DROP CONSTRAINT api_key_owner, DROP COLUMN rate_per_minute;"
        "UPDATE api_key SET role = 'admin' WHERE role = 'platform_admin';"
        "ALTER TABLE workspace DROP COLUMN mission_statement, DROP COLUMN emoji, DROP COLUMN color,"
        "DROP COLUMN founder;"
        "ALTER TABLE installation DROP COLUMN default_workspace;"
        "DROP TABLE agent; DROP TABLE principal; RESET ROLE"
    )


def _rename_owners() -> None:
    """Give each owner of keys one role and a name that may be said today; whose name is that already keeps it.

    A key that was made with another role keeps its rights, under a name that tells the two apart.
    """
    cursor = op.get_bind().connection.cursor()
    cursor.execute(_OWNERS)
    owners: list[tuple[bool, str, str, list[str]]] = []
    known: set[tuple[str, str]] = set()
    for workspace, name, role, keys in cursor.fetchall():
        wanted = f"{_spelt(name)[:100]}.{role}" if (workspace, name) in known else _spelt(name)
        known.add((workspace, name))
        owners.append((wanted != name, workspace, wanted, keys))
    taken: set[tuple[str, str]] = set()
    for _, workspace, wanted, keys in sorted(owners, key=itemgetter(0)):
        spellings = chain([wanted], (f"{wanted[:100]}.{number}" for number in count(2)))
        name = next(spelling for spelling in spellings if (workspace, spelling) not in taken)
        taken.add((workspace, name))
        cursor.execute(_RENAME, (name, workspace, keys))


def _spelt(name: str) -> str:
    """Spell a name as it may be today, as near to itself as can be."""
    with suppress(ValueError):
        return clean_name(name)
    seen = (
        letter if letter == " " or (is_seen(letter) and letter != "/") else "."
        for letter in unicodedata.normalize("NFKC", name)
    )
    return clean_name(f"old.{''.join(seen)[:100]}")


def _run(script: str) -> None:
    """Run several statements at once; the driver's own cursor, because SQLAlchemy would read % as a placeholder."""
    op.get_bind().connection.cursor().execute(script)
