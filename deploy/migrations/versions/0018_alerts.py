"""Alerts, and missions that wait because a limit blocks one of their runs."""

from alembic import op

revision = "0018"
down_revision = "0017"

_TABLES = """
CREATE TABLE alert (
    workspace_id text NOT NULL,
    alert_id text NOT NULL,
    kind text NOT NULL,
    subject_kind text NOT NULL,
    subject_id text NOT NULL,
    status text DEFAULT 'open' NOT NULL,
    summary text NOT NULL,
    details jsonb DEFAULT '{}' NOT NULL,
    detected_at timestamptz NOT NULL,
    acknowledged_by text,
    acknowledged_at timestamptz,
    resolved_by text,
    resolved_at timestamptz,
    note text,
    PRIMARY KEY (workspace_id, alert_id),
    FOREIGN KEY (workspace_id) REFERENCES workspace (workspace_id),
    CHECK (status IN ('open', 'acknowledged', 'resolved'))
);
-- What is wrong is told once, until it has been put right.
CREATE UNIQUE INDEX alert_unresolved ON alert (workspace_id, kind, subject_kind, subject_id)
    WHERE status <> 'resolved';
CREATE INDEX alert_newest ON alert (workspace_id, detected_at DESC, alert_id DESC);

ALTER TABLE alert ENABLE ROW LEVEL SECURITY;
ALTER TABLE alert FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON alert TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON alert TO mission_control_system, mission_control_owner USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON alert TO mission_control_app, mission_control_system;

GRANT DELETE ON budget_limit TO mission_control_app, mission_control_system;

ALTER TABLE mission ADD COLUMN blocked text;
CREATE INDEX mission_blocked ON mission (workspace_id, mission_id) WHERE blocked IS NOT NULL;
CREATE INDEX run_blocked ON run (workspace_id, mission_id) WHERE status = 'blocked' AND ended_at IS NULL;
"""


def upgrade() -> None:
    """Begin without any."""
    op.execute(f"SET ROLE mission_control_owner; {_TABLES} RESET ROLE")


def downgrade() -> None:
    """Forget them."""
    op.execute(
        "SET ROLE mission_control_owner; DROP TABLE alert; DROP INDEX run_blocked;"
        " REVOKE DELETE ON budget_limit FROM mission_control_app, mission_control_system;"
        " ALTER TABLE mission DROP COLUMN blocked; RESET ROLE"
    )
