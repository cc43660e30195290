"""The activity of agents: which rows of the audit log are whose, and how what they tell of went."""

from alembic import op

revision = "0016"
down_revision = "0015"

# Both follow from what a leaf commits to, so nobody can change them alone. An agent's acts are its own, and what a
# service or a human reports of its runs and decisions.
_COLUMNS = """
ALTER TABLE audit
    ADD COLUMN agent_id text GENERATED ALWAYS AS (CASE
        WHEN actor_kind = 'agent' THEN actor
        WHEN actor_kind IN ('human', 'service')
            AND (split_part(action, '.', 1) IN ('run', 'tool_call') OR action = 'agent.decided')
            THEN content::jsonb ->> 'agent_id'
    END) STORED,
    ADD COLUMN status text GENERATED ALWAYS AS (CASE
        WHEN action = 'run.ended' THEN content::jsonb ->> 'status'
        WHEN action = 'tool_call.failed' THEN 'failed'
        WHEN action IN ('tool_call.pending', 'tool_call.denied', 'run.blocked', 'budget.exceeded') THEN 'blocked'
        ELSE 'success'
    END) STORED;
CREATE INDEX audit_activity ON audit (workspace_id, created_at, id) WHERE agent_id IS NOT NULL;
CREATE INDEX audit_activity_agent ON audit (workspace_id, agent_id, created_at, id) WHERE agent_id IS NOT NULL;
CREATE INDEX audit_activity_status ON audit (workspace_id, status, created_at, id) WHERE agent_id IS NOT NULL;

CREATE VIEW activity WITH (security_invoker = true) AS
SELECT workspace_id, id, created_at AS "timestamp", agent_id, action, status, content::jsonb AS metadata, subject_kind,
    subject_id, correlation_id
FROM audit WHERE agent_id IS NOT NULL;
GRANT SELECT ON activity TO mission_control_app, mission_control_system;
"""

# What is generated is not there yet when this looks at a row.
_REDACTED = """
CREATE OR REPLACE FUNCTION mc_audit_is_redacted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    free text[] := '{content,salt%s}';
BEGIN
    IF NEW.content IS NOT NULL OR NEW.salt IS NOT NULL OR (to_jsonb(NEW) - free) <> (to_jsonb(OLD) - free) THEN
        RAISE EXCEPTION 'audit is only added to; content may be redacted' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""


def upgrade() -> None:
    """Say it of all rows that there are."""
    op.execute(f"SET ROLE mission_control_owner; {_COLUMNS} {_REDACTED % ',agent_id,status'} RESET ROLE")


def downgrade() -> None:
    """Forget whose they are; the rows stay."""
    op.execute(
        f"SET ROLE mission_control_owner; {_REDACTED % ''} DROP VIEW activity;"
        "ALTER TABLE audit DROP COLUMN agent_id, DROP COLUMN status; RESET ROLE"
    )
