"""The mission spine: roles, tables, row-level security."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make everything."""
    _run(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Take everything away but the roles, which other databases of the cluster may use."""
    _run(
        "SET ROLE mission_control_owner;"
        "DO $$ DECLARE name text; BEGIN FOR name IN SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' AND NOT relispartition"
        " LOOP EXECUTE format('DROP TABLE %I CASCADE', name); END LOOP; END $$;"
        "DROP FUNCTION mc_now, mc_epoch, mc_stage_is_final, mc_remove_blob;"
        "DROP FUNCTION mc_event_partitions, mc_drop_event_partitions;"
        "RESET ROLE;"
    )


def _run(script: str) -> None:
    """Run several statements at once; the driver's own cursor, because SQLAlchemy would read % as a placeholder."""
    op.get_bind().connection.cursor().execute(script)
