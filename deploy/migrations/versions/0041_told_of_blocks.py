"""How often, and when last, a mission was told that its runs were blocked, or go on."""

from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    """Begin at nothing."""
    op.execute(
        "SET ROLE mission_control_owner; ALTER TABLE mission ADD COLUMN blocks_told integer NOT NULL DEFAULT 0,"
        " ADD COLUMN blocks_told_at timestamptz; RESET ROLE"
    )


def downgrade() -> None:
    """Forget it."""
    op.execute(
        "SET ROLE mission_control_owner; ALTER TABLE mission DROP COLUMN blocks_told, DROP COLUMN blocks_told_at;"
        " RESET ROLE"
    )
