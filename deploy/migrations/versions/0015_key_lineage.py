"""Which key each one was rotated from, however often: they count their requests together."""

from alembic import op

revision = "0015"
down_revision = "0014"

_CHANGE = """
ALTER TABLE api_key ADD COLUMN lineage text;
WITH RECURSIVE line AS (
    SELECT workspace_id, key_id, rotated_to, key_id AS first FROM api_key k
    WHERE NOT EXISTS (SELECT FROM api_key o WHERE o.workspace_id = k.workspace_id AND o.rotated_to = k.key_id)
    UNION ALL
    SELECT k.workspace_id, k.key_id, k.rotated_to, line.first FROM line
    JOIN api_key k ON k.workspace_id = line.workspace_id AND k.key_id = line.rotated_to
)
UPDATE api_key SET lineage = line.first FROM line
WHERE api_key.workspace_id = line.workspace_id AND api_key.key_id = line.key_id;
ALTER TABLE api_key ALTER COLUMN lineage SET NOT NULL;
"""


def upgrade() -> None:
    """Follow the rotations that there were."""
    op.execute(f"SET ROLE mission_control_owner; {_CHANGE} RESET ROLE")


def downgrade() -> None:
    """Forget it."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE api_key DROP COLUMN lineage; RESET ROLE")
