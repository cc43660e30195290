"""A place belongs to the workspace where it is registered: of several that register it at once, the first one has it.

No workspace sees the rows of another, so a function of the owner's looks whether there is one, and says no more.
"""

from alembic import op

revision = "0038"
down_revision = "0037"

# The look is a statement of its own, after the wait: it sees what was committed meanwhile.
_UP = """
CREATE FUNCTION mc_hold_place(wanted text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('place/' || wanted, 0));
    RETURN EXISTS (
        SELECT FROM repository
        WHERE place = wanted AND workspace_id IS DISTINCT FROM current_setting('app.workspace', true)
    );
END $$;
REVOKE ALL ON FUNCTION mc_hold_place(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mc_hold_place(text) TO mission_control_app;
"""


def upgrade() -> None:
    """Begin with it; places that several workspaces have stay with all of them."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Let every workspace register any place again."""
    op.execute("SET ROLE mission_control_owner; DROP FUNCTION mc_hold_place(text); RESET ROLE")
