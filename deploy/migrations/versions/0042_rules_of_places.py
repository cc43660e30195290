"""What any workspace demands of a place holds for the missions of all: whoever registered it first makes no exception.

No workspace sees the rows of another, so a function of the owner's joins the rules, and says no more.
"""

from alembic import op

revision = "0042"
down_revision = "0041"

_UP = """
CREATE FUNCTION mc_rules_at(wanted text) RETURNS TABLE (is_production boolean, is_protected boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(bool_or(env = 'prod'), false), coalesce(bool_or(protected), false)
    FROM repository WHERE place = wanted
$$;
REVOKE ALL ON FUNCTION mc_rules_at(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mc_rules_at(text) TO mission_control_app;
"""


def upgrade() -> None:
    """Begin with it; missions that were filed keep the rules that they have."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Let each workspace's rules hold for its own missions only."""
    op.execute("SET ROLE mission_control_owner; DROP FUNCTION mc_rules_at(text); RESET ROLE")
