"""Rows that name a mission or a repository name one that exists, in their own workspace."""

from alembic import op

revision = "0003"
down_revision = "0002"

_NAMES = (
    ("mission", "retry_of", "mission"),
    ("metric_observation", "mission_id", "mission"),
    ("workbench", "mission_id", "mission"),
    ("decision", "mission_id", "mission"),
    ("capa", "mission_id", "mission"),
    ("base_result", "repository_id", "repository"),
    ("merge_fence", "repository_id", "repository"),
)


def upgrade() -> None:
    """Hold them to it."""
    op.execute("SET ROLE mission_control_owner")
    for table, column, named in _NAMES:
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {_constraint(table, column)}"
            f" FOREIGN KEY (workspace_id, {column}) REFERENCES {named}"
        )
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Let them name anything."""
    op.execute("SET ROLE mission_control_owner")
    for table, column, _ in _NAMES:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {_constraint(table, column)}")
    op.execute("RESET ROLE")


def _constraint(table: str, column: str) -> str:
    return f"{table}_{column}_exists"
