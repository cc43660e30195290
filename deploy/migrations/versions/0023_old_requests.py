"""Old requests are found without reading them all: rows come in the order of time, so ranges of pages will do."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Keep in mind which pages are old; writing a row costs nothing more."""
    op.execute(
        "SET ROLE mission_control_owner;"
        "CREATE INDEX idempotency_old ON idempotency USING brin (created_at) WITH (autosummarize = on);"
        "RESET ROLE"
    )


def downgrade() -> None:
    """Read them all again."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX idempotency_old; RESET ROLE")
