"""What is asked about a run, or about a limit, is found by that, however much else waits."""

from alembic import op

revision = "0027"
down_revision = "0026"

# A column, because row-level security keeps an index on an expression of `binding` from being used. What missions ask
# is about none of these, and costs the index nothing.
_UP = """
ALTER TABLE decision ADD COLUMN about text GENERATED ALWAYS AS (CASE kind
    WHEN 'tool_action' THEN binding ->> 'run_id'
    WHEN 'budget' THEN (binding ->> 'scope') || '/' || (binding ->> 'subject') END) STORED;
CREATE INDEX decision_about ON decision (kind, workspace_id, about) WHERE status = 'pending' AND about IS NOT NULL;
"""


def upgrade() -> None:
    """Name what each is about."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Look through all that waits again."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE decision DROP COLUMN about; RESET ROLE")
