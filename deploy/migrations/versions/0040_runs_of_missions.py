"""The open runs of a mission are found by it, as its end withdraws what is asked about their calls."""

from alembic import op

revision = "0040"
down_revision = "0039"

_MAKE = """
SET ROLE mission_control_owner;
CREATE INDEX run_open_for ON run (workspace_id, mission_id) WHERE ended_at IS NULL AND run_id <> mission_id;
RESET ROLE
"""


def upgrade() -> None:
    """Find them so; a mission's own run asks nothing, and costs it nothing."""
    op.execute(_MAKE)


def downgrade() -> None:
    """Look through all that are open."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX run_open_for; RESET ROLE")
