"""How far agents are trusted, and which missions made it so."""

from alembic import op

revision = "0012"
down_revision = "0011"

_TABLES = """
ALTER TABLE agent ADD COLUMN trust numeric(3, 2) DEFAULT 0.50 NOT NULL CHECK (trust BETWEEN 0 AND 1);
CREATE TABLE trust_change (
    workspace_id text NOT NULL,
    agent_id text NOT NULL,
    mission_id text NOT NULL,
    outcome text NOT NULL,
    before numeric(3, 2) NOT NULL,
    after numeric(3, 2) NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, mission_id),
    FOREIGN KEY (workspace_id, agent_id) REFERENCES agent,
    FOREIGN KEY (workspace_id, mission_id) REFERENCES mission
);
CREATE INDEX trust_change_newest ON trust_change (workspace_id, agent_id, at, mission_id);

ALTER TABLE trust_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE trust_change FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON trust_change TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON trust_change TO mission_control_system, mission_control_owner
    USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON trust_change TO mission_control_app, mission_control_system;
"""


def upgrade() -> None:
    """Trust all agents as far as new ones."""
    op.execute(f"SET ROLE mission_control_owner; {_TABLES} RESET ROLE")


def downgrade() -> None:
    """Forget it."""
    op.execute("SET ROLE mission_control_owner; DROP TABLE trust_change; ALTER TABLE agent DROP COLUMN trust")
    op.execute("RESET ROLE")
