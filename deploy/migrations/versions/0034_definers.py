"""Functions with their owner's rights take no temporary table of whoever calls them for one of ours.

PostgreSQL looks among temporary tables first unless the path says where: a table of the same name, with a trigger on
it, would be used, and the trigger run, with the owner's rights.
"""

from alembic import op

revision = "0034"
down_revision = "0033"

_DEFINERS = (
    "mc_audit_event()",
    "mc_drop_event_partitions(date)",
    "mc_event_partitions(integer)",
    "mc_redact_audit(bigint, text, text, text)",
    "mc_remove_blob(text, text)",
)


def upgrade() -> None:
    """Look there last."""
    _search("public, pg_temp")


def downgrade() -> None:
    """Put the paths of before back."""
    _search("public")


def _search(path: str) -> None:
    changes = "; ".join(f"ALTER FUNCTION {name} SET search_path = {path}" for name in _DEFINERS)
    op.execute(f"SET ROLE mission_control_owner; {changes}; RESET ROLE")
