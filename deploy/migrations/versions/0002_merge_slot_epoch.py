"""Merge queues count their slot tokens from an epoch that Postgres hands out, not from a host's clock."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Begin above every token that came from a clock: those were milliseconds, an epoch is a million tokens."""
    op.execute("SET ROLE mission_control_owner")
    op.execute("CREATE SEQUENCE merge_slot_epoch START 10000000")
    op.execute("GRANT USAGE ON SEQUENCE merge_slot_epoch TO mission_control_system")
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Take the epochs away."""
    op.execute("DROP SEQUENCE merge_slot_epoch")
