"""How many open missions an agent has filed is found without reading those of others."""

from alembic import op

revision = "0044"
down_revision = "0043"


def upgrade() -> None:
    """Index the open ones by who filed them."""
    op.execute(
        "SET ROLE mission_control_owner;"
        " CREATE INDEX mission_filed ON mission (workspace_id, created_by) WHERE ended_at IS NULL; RESET ROLE"
    )


def downgrade() -> None:
    """Find them by reading."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX mission_filed; RESET ROLE")
