"""Whoever waits for a row has no transaction id yet, and the audit log tells the moment at which a row was written."""

from alembic import op

revision = "0019"
down_revision = "0018"

# Between the lock and the look lies a new snapshot: what the one before us has answered is seen.
_UP = """
CREATE FUNCTION mc_hold_request(workspace text, request text) RETURNS SETOF idempotency LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('request/' || workspace || '/' || request, 0));
    RETURN QUERY SELECT * FROM idempotency WHERE workspace_id = workspace AND idempotency_key = request;
END $$;
ALTER TABLE audit ALTER COLUMN created_at SET DEFAULT clock_timestamp();
"""
_DOWN = """
ALTER TABLE audit ALTER COLUMN created_at SET DEFAULT now();
DROP FUNCTION mc_hold_request(text, text);
"""


def upgrade() -> None:
    """Begin with it; rows that are there keep their times."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Write a request's key down before anything else again."""
    op.execute(f"SET ROLE mission_control_owner; {_DOWN} RESET ROLE")
