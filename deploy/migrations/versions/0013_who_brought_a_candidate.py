"""Who brought a candidate, whomever it names as its author."""

from alembic import op

revision = "0013"
down_revision = "0012"

# Where no event is left that tells of it, it came with its mission.
_CHANGE = """
ALTER TABLE candidate ADD COLUMN added_by text;
UPDATE candidate SET added_by = event.actor FROM event
WHERE event.workspace_id = candidate.workspace_id AND event.type = 'mission.candidate_added'
AND event.subject_id = candidate.mission_id AND event.data ->> 'number' = CAST(candidate.number AS text);
UPDATE candidate SET added_by = mission.created_by FROM mission
WHERE candidate.added_by IS NULL
AND mission.workspace_id = candidate.workspace_id AND mission.mission_id = candidate.mission_id;
ALTER TABLE candidate ALTER COLUMN added_by SET NOT NULL;
"""


def upgrade() -> None:
    """Learn it from the events."""
    op.execute(f"SET ROLE mission_control_owner; {_CHANGE} RESET ROLE")


def downgrade() -> None:
    """Forget it."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE candidate DROP COLUMN added_by; RESET ROLE")
