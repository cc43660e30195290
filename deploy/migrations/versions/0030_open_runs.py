"""How many runs somebody has open is counted by an index, however many have ended."""

from alembic import op

revision = "0030"
down_revision = "0029"

_MAKE = """
SET ROLE mission_control_owner;
CREATE INDEX run_open_of ON run (workspace_id, agent_id, created_by)
    WHERE ended_at IS NULL AND mission_id IS DISTINCT FROM run_id;
RESET ROLE
"""


def upgrade() -> None:
    """Count them by whose they are; a mission's own run is nobody's, and costs it nothing."""
    op.execute(_MAKE)


def downgrade() -> None:
    """Look through all."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX run_open_of; RESET ROLE")
