"""What a workspace remembers: notes, kept or proposed."""

from alembic import op

revision = "0021"
down_revision = "0020"

# What a note says is never changed: the roles may write only what became of it.
_TABLE = """
CREATE TABLE memory_note (
    workspace_id text NOT NULL REFERENCES workspace,
    memory_id text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 20000),
    tags jsonb DEFAULT '[]' NOT NULL,
    mission_id text,
    digest text NOT NULL,
    state text NOT NULL,
    decision_id text,
    written_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    changed_by text,
    changed_at timestamptz,
    PRIMARY KEY (workspace_id, memory_id),
    FOREIGN KEY (workspace_id, mission_id) REFERENCES mission,
    FOREIGN KEY (workspace_id, decision_id) REFERENCES decision,
    CHECK (state <> 'proposed' OR decision_id IS NOT NULL)
);
CREATE INDEX memory_note_newest ON memory_note (workspace_id, state, created_at, memory_id);
CREATE INDEX memory_note_of_mission ON memory_note (workspace_id, mission_id) WHERE mission_id IS NOT NULL;
CREATE INDEX memory_note_proposed ON memory_note (workspace_id, decision_id) WHERE state = 'proposed';

ALTER TABLE memory_note ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory_note FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON memory_note TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON memory_note TO mission_control_system, mission_control_owner
    USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (state, changed_by, changed_at)
    ON memory_note TO mission_control_app, mission_control_system;
"""


def upgrade() -> None:
    """Begin without a note."""
    op.execute(f"SET ROLE mission_control_owner; {_TABLE} RESET ROLE")


def downgrade() -> None:
    """Forget them all."""
    op.execute("SET ROLE mission_control_owner; DROP TABLE memory_note; RESET ROLE")
