"""The runs of a ticket are found by it, however many others there are."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Find them by an index; what missions run is of no ticket, and costs it nothing."""
    op.execute(
        "SET ROLE mission_control_owner;"
        " CREATE INDEX run_of_ticket ON run (workspace_id, ticket_id) WHERE ticket_id IS NOT NULL; RESET ROLE"
    )


def downgrade() -> None:
    """Look through all."""
    op.execute("SET ROLE mission_control_owner; DROP INDEX run_of_ticket; RESET ROLE")
