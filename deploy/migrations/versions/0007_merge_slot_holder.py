"""Who holds a branch's merge slot stands in Postgres, beside its token: a free one is taken there."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Let the fence name its holder; tokens count on from the last that passed it, so no epoch is needed."""
    op.execute("SET ROLE mission_control_owner")
    op.execute(
        "ALTER TABLE merge_fence ADD COLUMN holder text, ADD COLUMN holder_run text,"
        " ADD COLUMN awaited boolean DEFAULT false NOT NULL"
    )
    op.execute("DROP SEQUENCE merge_slot_epoch")
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Forget the holders; epochs begin far above every token."""
    op.execute("SET ROLE mission_control_owner")
    op.execute("ALTER TABLE merge_fence DROP COLUMN holder, DROP COLUMN holder_run, DROP COLUMN awaited")
    op.execute("CREATE SEQUENCE merge_slot_epoch START 20000000")
    op.execute("GRANT USAGE ON SEQUENCE merge_slot_epoch TO mission_control_system")
    op.execute("RESET ROLE")
