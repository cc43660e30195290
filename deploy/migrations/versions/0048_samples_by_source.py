"""The newest samples of a metric by one source are found without reading those of others."""

from alembic import op

revision = "0048"
down_revision = "0047"

_UP = "CREATE INDEX metric_observation_source ON metric_observation (workspace_id, metric_id, source, at DESC);"


def upgrade() -> None:
    """Add the index."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Take it away."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX metric_observation_source; RESET ROLE")
