"""Workspaces that have sealed rows: their places in the tree of counts, and the salts of their leaves there."""

from alembic import op

revision = "0022"
down_revision = "0021"

# Those that have rows by now get their places in the order in which they came.
_UP = """
CREATE TABLE audit_workspace (
    workspace_id text PRIMARY KEY,
    number bigint NOT NULL UNIQUE,
    salt bytea NOT NULL
);
INSERT INTO audit_workspace (workspace_id, number, salt)
SELECT workspace_id, row_number() OVER (ORDER BY min(tree_index)) - 1,
    uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
FROM audit_leaf GROUP BY workspace_id;
CREATE TRIGGER audit_workspace_is_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_workspace
    FOR EACH STATEMENT EXECUTE FUNCTION mc_is_only_added_to();
ALTER TABLE audit_workspace ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_workspace FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON audit_workspace TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON audit_workspace TO mission_control_system, mission_control_owner
    USING (true) WITH CHECK (true);
GRANT SELECT ON audit_workspace TO mission_control_app;
GRANT SELECT, INSERT ON audit_workspace TO mission_control_system;
"""


def upgrade() -> None:
    """Count from the next checkpoint on; those that are signed stay as they are."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Sign no counts any more."""
    op.execute("SET ROLE mission_control_owner; DROP TABLE audit_workspace; RESET ROLE")
