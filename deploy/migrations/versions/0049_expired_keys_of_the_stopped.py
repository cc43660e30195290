"""Keys that had expired before their agent was stopped are revoked, too: no clock opens them again."""

from alembic import op

revision = "0049"
down_revision = "0048"

_UP = """
UPDATE api_key k SET revoked_at = k.expires_at FROM agent a
WHERE k.revoked_at IS NULL AND a.workspace_id = k.workspace_id AND a.name = k.principal
AND a.status = 'stopped' AND k.expires_at <= mc_now();
"""


def upgrade() -> None:
    """Revoke them as of when they ended."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Leave them revoked: they open nothing before, either."""
