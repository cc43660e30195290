"""The queue's index knows what score a mission takes, so that those above an agent's are passed over unread."""

from alembic import op

revision = "0014"
down_revision = "0013"

# Compared as a float, because Postgres lets only comparisons that cannot fail into an index scan under row security.
_UP = """
ALTER TABLE mission ADD COLUMN required_trust double precision
    GENERATED ALWAYS AS (COALESCE(CAST(trust_requirements ->> 'required_trust_score' AS double precision), 0)) STORED;
DROP INDEX mission_queue;
CREATE INDEX mission_queue ON mission (workspace_id, severity_rank, created_at, seq, required_trust)
    WHERE status = 'open' AND claimed_at IS NULL AND run_id IS NULL;
"""
_DOWN = """
DROP INDEX mission_queue;
CREATE INDEX mission_queue ON mission (workspace_id, severity_rank, created_at, seq)
    WHERE status = 'open' AND claimed_at IS NULL;
ALTER TABLE mission DROP COLUMN required_trust;
"""


def upgrade() -> None:
    """Read it out of what each mission requires."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Look into each mission again."""
    op.execute(f"SET ROLE mission_control_owner; {_DOWN} RESET ROLE")
