"""Public keys of the service, so that whoever may read a signed record can verify it."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table. It belongs to the installation: all workspaces see it, and nobody changes a row."""
    op.execute("SET ROLE mission_control_owner")
    op.execute(
        "CREATE TABLE signing_key (key_id text PRIMARY KEY, public_key text NOT NULL,"
        " created_at timestamptz DEFAULT now() NOT NULL)"
    )
    op.execute("GRANT SELECT ON signing_key TO mission_control_app")
    op.execute("GRANT SELECT, INSERT ON signing_key TO mission_control_system")
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Take it away."""
    op.execute("DROP TABLE signing_key")
