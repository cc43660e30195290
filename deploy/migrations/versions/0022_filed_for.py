"""A mission keeps for whom it was filed beside whom the queue gave it to, and what is claimed is found by its agent."""

from alembic import op

revision = "0022"
down_revision = "0021"

# Of those that are claimed by now nobody knows any more.
_UP = """
ALTER TABLE mission ADD COLUMN filed_for text;
UPDATE mission SET filed_for = assigned_to WHERE claimed_at IS NULL AND assigned_to IS NOT NULL;
CREATE INDEX mission_claimed ON mission (workspace_id, assigned_to)
    WHERE claimed_at IS NOT NULL AND status = 'open' AND run_id IS NULL;
"""
_DOWN = """
DROP INDEX mission_claimed;
ALTER TABLE mission DROP COLUMN filed_for;
"""


def upgrade() -> None:
    """Begin with what is not claimed."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Forget it."""
    op.execute(f"SET ROLE mission_control_owner; {_DOWN} RESET ROLE")
