"""What waits for an agent is found by its name, claimed or not: it is offered to others once the agent has ended."""

from alembic import op

revision = "0024"
down_revision = "0023"

_UP = """
DROP INDEX mission_claimed;
CREATE INDEX mission_assigned ON mission (workspace_id, assigned_to)
    WHERE status = 'open' AND run_id IS NULL AND assigned_to IS NOT NULL;
"""
_DOWN = """
DROP INDEX mission_assigned;
CREATE INDEX mission_claimed ON mission (workspace_id, assigned_to)
    WHERE claimed_at IS NOT NULL AND status = 'open' AND run_id IS NULL;
"""


def upgrade() -> None:
    """Find those that nobody has claimed, too."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Find the claimed ones only."""
    op.execute(f"SET ROLE mission_control_owner; {_DOWN} RESET ROLE")
