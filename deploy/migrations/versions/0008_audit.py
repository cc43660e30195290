"""The audit log: rows that follow from events, the Merkle tree over them, and its signed checkpoints."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make it. What happened before has events, and no audit rows."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(script)  # SQLAlchemy would read % as a placeholder


def downgrade() -> None:
    """Take it away with all that it holds."""
    op.execute("SET ROLE mission_control_owner")
    op.execute("DROP TRIGGER event_is_audited ON event")
    op.execute("DROP VIEW operator_audit_log")
    op.execute("DROP FUNCTION mc_audit_leaf(audit, bigint), mc_redact_audit(bigint, text, text, text)")
    op.execute("DROP TABLE audit, audit_leaf, audit_node, audit_checkpoint, audit_mirrored")
    op.execute("DROP FUNCTION mc_audit_event(), mc_audit_is_redacted(), mc_is_only_added_to(), mc_kind_of(text, text)")
    op.execute("ALTER TABLE installation DROP COLUMN origin")
    op.execute("RESET ROLE")
