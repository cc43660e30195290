"""What is asked about a mission's runs is found by the mission, also once it was answered."""

from alembic import op

revision = "0045"
down_revision = "0044"

# What missions themselves ask is about no run, and costs these indexes nothing.
_UP = """
CREATE INDEX decision_of_run ON decision (workspace_id, about) WHERE about IS NOT NULL;
CREATE INDEX run_of_mission ON run (workspace_id, mission_id) WHERE mission_id IS NOT NULL;
"""


def upgrade() -> None:
    """Index them by what they are about."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Find them by reading."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX decision_of_run; DROP INDEX run_of_mission; RESET ROLE")
