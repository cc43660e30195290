"""An answer remembers whether it counted when its question closed, and who approved may deny after all."""

from alembic import op

revision = "0026"
down_revision = "0025"

# Of what is closed by now nobody knows any more who counted then.
_UP = """
ALTER TABLE decision_answer ADD COLUMN counts boolean DEFAULT true NOT NULL,
    DROP CONSTRAINT decision_answer_pkey, ADD PRIMARY KEY (workspace_id, decision_id, principal, answer);
CREATE FUNCTION mc_answer_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the answer of % to % counts no more, for good', OLD.principal, OLD.decision_id;
END $$;
CREATE TRIGGER answer_is_final BEFORE UPDATE ON decision_answer
    FOR EACH ROW WHEN (NOT OLD.counts) EXECUTE FUNCTION mc_answer_is_final();
GRANT UPDATE (counts) ON decision_answer TO mission_control_app, mission_control_system;
"""
_DOWN = """
DROP TRIGGER answer_is_final ON decision_answer;
DROP FUNCTION mc_answer_is_final;
REVOKE UPDATE (counts) ON decision_answer FROM mission_control_app, mission_control_system;
DELETE FROM decision_answer a USING decision_answer d WHERE a.answer = 'approved' AND d.answer = 'denied'
    AND (a.workspace_id, a.decision_id, a.principal) = (d.workspace_id, d.decision_id, d.principal);
ALTER TABLE decision_answer DROP CONSTRAINT decision_answer_pkey, DROP COLUMN counts,
    ADD PRIMARY KEY (workspace_id, decision_id, principal);
"""


def upgrade() -> None:
    """Let all count that were given by now."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Forget it, and of who approved and denied keep the denial."""
    op.execute(f"SET ROLE mission_control_owner; {_DOWN} RESET ROLE")
