"""API keys that admins make, rotate and revoke: scopes, a hint to know them by, and when they were last used."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Give keys their columns. The app may make and end keys, in its own workspace only, as everywhere."""
    op.execute("SET ROLE mission_control_owner")
    op.execute(
        "ALTER TABLE api_key ADD COLUMN hint text DEFAULT '' NOT NULL, ADD COLUMN scopes jsonb DEFAULT '[]' NOT NULL,"
        " ADD COLUMN created_by text DEFAULT 'first-start' NOT NULL, ADD COLUMN rotated_to text,"
        " ADD COLUMN last_used_at timestamptz"
    )
    op.execute("CREATE INDEX api_key_by_age ON api_key (workspace_id, created_at, key_id)")
    op.execute("GRANT INSERT, UPDATE ON api_key TO mission_control_app")
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Take the columns away."""
    op.execute("REVOKE INSERT, UPDATE ON api_key FROM mission_control_app")
    op.execute("DROP INDEX api_key_by_age")
    op.execute(
        "ALTER TABLE api_key DROP COLUMN hint, DROP COLUMN scopes, DROP COLUMN created_by, DROP COLUMN rotated_to,"
        " DROP COLUMN last_used_at"
    )
