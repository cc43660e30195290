"""A mission keeps whether its branch was chosen by somebody who may not: it is judged as a protected one then."""

from alembic import op

revision = "0039"
down_revision = "0038"

# Who is unknown here came from another workspace, as people do.
_UP = """
ALTER TABLE mission ADD COLUMN chosen_branch boolean NOT NULL DEFAULT false;
UPDATE mission m SET chosen_branch = true, protected = m.protected OR m.outcome IS NULL
    FROM repository r, principal p
    WHERE r.workspace_id = m.workspace_id AND r.repository_id = m.repository_id AND r.target_branch <> m.branch
    AND p.workspace_id = m.workspace_id AND p.name = m.created_by AND p.kind <> 'human';
"""


def upgrade() -> None:
    """Tell it of those that are there, and hold those that have not ended to it."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Forget it; what is judged as protected stays so."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE mission DROP COLUMN chosen_branch; RESET ROLE")
