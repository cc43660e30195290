"""Since when a resumed agent can be heard of is no heartbeat: it has a time of its own."""

from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add the time; whoever was resumed before has had its usual time."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE agent ADD COLUMN resumed_at timestamptz; RESET ROLE")


def downgrade() -> None:
    """Forget it."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE agent DROP COLUMN resumed_at; RESET ROLE")
