"""Keys that ended at once when they were rotated, or with their owner, are revoked: no clock opens them again."""

from alembic import op

revision = "0047"
down_revision = "0046"

# A key that was rotated without grace ended in the transaction that made its successor.
_UP = """
UPDATE api_key k SET revoked_at = k.expires_at FROM api_key s
WHERE k.revoked_at IS NULL AND s.workspace_id = k.workspace_id AND s.key_id = k.rotated_to
AND k.expires_at <= s.created_at;
UPDATE api_key k SET revoked_at = p.deactivated_at FROM principal p
WHERE k.revoked_at IS NULL AND p.workspace_id = k.workspace_id AND p.name = k.principal
AND p.deactivated_at IS NOT NULL;
"""


def upgrade() -> None:
    """Revoke them as of when they ended."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Leave them revoked: they open nothing before, either."""
