"""The index that sums up costs by day holds what was paid, and no look for a reservation can take it for its own.

Without statistics, as of a young ledger, the planner read all rows of a workspace to find the one of a call.
"""

from alembic import op

revision = "0043"
down_revision = "0042"
_AS_OWNER = "SET ROLE mission_control_owner; DROP INDEX ledger_by_day; {}; RESET ROLE"


def upgrade() -> None:
    """Index what the sums read."""
    paid = "CREATE INDEX ledger_by_day ON ledger (workspace_id, day) WHERE kind IN ('settle', 'adjust')"
    op.execute(_AS_OWNER.format(paid))


def downgrade() -> None:
    """Index all."""
    op.execute(_AS_OWNER.format("CREATE INDEX ledger_by_day ON ledger (workspace_id, day)"))
