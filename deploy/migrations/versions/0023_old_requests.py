"""Old requests are found without reading the others, however many there are."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Keep them in the order in which they came."""
    op.execute("SET ROLE mission_control_owner;CREATE INDEX idempotency_old ON idempotency (created_at);RESET ROLE")


def downgrade() -> None:
    """Read them all again."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX idempotency_old; RESET ROLE")
