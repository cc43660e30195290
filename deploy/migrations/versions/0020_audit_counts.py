"""Counts of each workspace's sealed rows; the console's view of the log, with the seeds' words and their indexes."""

from alembic import op

revision = "0020"
down_revision = "0019"

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

_VIEW = """
CREATE OR REPLACE VIEW operator_audit_log WITH (security_invoker = true) AS
SELECT workspace_id, id, actor AS user_id,
    CASE WHEN subject_kind = 'session' THEN subject_id END AS session_id,
    content::jsonb ->> 'provider' AS provider,
    {action} AS action, coalesce(content::jsonb ->> 'content', content::jsonb ->> 'detail') AS content,
    coalesce(content::jsonb, '{{}}') AS metadata, created_at
FROM audit WHERE actor_kind = 'human';
"""
# What an operator does to a mission or an agent, in one word; all else by its type.
_WORDS = """CASE
    WHEN action = 'mission.noted' THEN 'barge-in'
    WHEN action = 'mission.paused' THEN 'pause'
    WHEN action = 'mission.resumed' THEN 'resume'
    WHEN action = 'mission.cancel_requested' THEN 'terminate'
    WHEN action = 'mission.escalated' AND content::jsonb ->> 'outcome' = 'canceled' THEN 'terminate'
    WHEN action = 'agent.status_changed' THEN coalesce(content::jsonb ->> 'verb', action)
    ELSE action END"""
# By user and by time there are indexes already.
_INDEX = """
CREATE INDEX audit_session ON audit
(workspace_id, (CASE WHEN subject_kind = 'session' THEN subject_id END), created_at, id) WHERE actor_kind = 'human';
"""


def upgrade() -> None:
    """Count from the next checkpoint on; those that are signed stay as they are."""
    view = _VIEW.format(action=_WORDS)
    op.execute(f"SET ROLE mission_control_owner; {_UP} {view} {_INDEX} RESET ROLE")


def downgrade() -> None:
    """Forget the salts: a log that was sealed with counts is not sealed on after another upgrade."""
    view = _VIEW.format(action="action")
    op.execute(
        f"SET ROLE mission_control_owner; DROP INDEX audit_session; {view} DROP TABLE audit_workspace; RESET ROLE"
    )
