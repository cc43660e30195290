"""Questions are listed by when their time is over, those that wait for ever last."""

from alembic import op

revision = "0031"
down_revision = "0030"

_UP = """
ALTER TABLE decision ADD COLUMN answer_until timestamptz
    GENERATED ALWAYS AS (COALESCE(expires_at, timestamptz '9999-01-01 00:00:00+00')) STORED;
CREATE INDEX decision_by_expiry ON decision (workspace_id, answer_until, decision_id);
"""


def upgrade() -> None:
    """Give each its place among the others, and find them by it."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """List them by their beginning and risk alone."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE decision DROP COLUMN answer_until; RESET ROLE")
