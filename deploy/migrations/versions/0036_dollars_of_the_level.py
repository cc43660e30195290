"""An agent's cap on tokens may leave its dollars to its level, whichever that is."""

from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Caps that were set before keep the dollars that they have."""
    op.execute(
        "SET ROLE mission_control_owner;"
        "ALTER TABLE budget_limit ADD COLUMN usd_of_level boolean DEFAULT false NOT NULL; RESET ROLE"
    )


def downgrade() -> None:
    """Keep the dollars that a level gave when they were left to it."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE budget_limit DROP COLUMN usd_of_level; RESET ROLE")
