"""Tools that an agent may call, and tool calls that are judged before they are made."""

from alembic import op

revision = "0017"
down_revision = "0016"

# What was called until now was told of when it was over.
_CHANGE = """
ALTER TABLE agent ADD COLUMN tools jsonb DEFAULT '["*"]'::jsonb NOT NULL;
ALTER TABLE tool_call
    ADD COLUMN digest text,
    ADD COLUMN refused text,
    ADD COLUMN verdict_id text,
    ADD COLUMN decision_id text,
    ADD COLUMN ended_at timestamptz,
    ADD FOREIGN KEY (workspace_id, verdict_id) REFERENCES verdict,
    ADD FOREIGN KEY (workspace_id, decision_id) REFERENCES decision;
UPDATE tool_call SET ended_at = at;

-- How a call went is told once; what was asked stands.
CREATE FUNCTION mc_tool_call_ends_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tool call % of run % is over', OLD.number, OLD.run_id;
END $$;
CREATE TRIGGER tool_call_ends_once BEFORE UPDATE ON tool_call
    FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION mc_tool_call_ends_once();
GRANT UPDATE (error, duration_ms, cost_id, ended_at) ON tool_call TO mission_control_app, mission_control_system;
"""

_BACK = """
REVOKE UPDATE (error, duration_ms, cost_id, ended_at) ON tool_call FROM mission_control_app, mission_control_system;
DROP TRIGGER tool_call_ends_once ON tool_call;
DROP FUNCTION mc_tool_call_ends_once();
ALTER TABLE tool_call DROP COLUMN digest, DROP COLUMN refused, DROP COLUMN verdict_id, DROP COLUMN decision_id,
    DROP COLUMN ended_at;
ALTER TABLE agent DROP COLUMN tools;
"""


def upgrade() -> None:
    """Let each agent call all tools, as before; admins narrow it."""
    _run(f"SET ROLE mission_control_owner; {_CHANGE} RESET ROLE")


def downgrade() -> None:
    """Forget what was asked; calls that were never made look as if they were."""
    _run(f"SET ROLE mission_control_owner; {_BACK} RESET ROLE")


def _run(script: str) -> None:
    """Run several statements at once; the driver's own cursor, because SQLAlchemy would read % as a placeholder."""
    op.get_bind().connection.cursor().execute(script)
