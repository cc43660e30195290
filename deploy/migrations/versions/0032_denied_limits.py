"""A limit keeps by whom and why a higher cap was denied, until it opens or somebody is asked anew."""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Nothing is known of what was denied before."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE budget ADD COLUMN denied text; RESET ROLE")


def downgrade() -> None:
    """Forget it; the decisions have it."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE budget DROP COLUMN denied; RESET ROLE")
