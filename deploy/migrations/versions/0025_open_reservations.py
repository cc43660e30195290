"""Counters know how many reservations are open: those of free calls hold nothing, and are held all the same."""

from alembic import op

revision = "0025"
down_revision = "0024"

# A run that has ended holds nothing.
_UP = """
ALTER TABLE budget ADD COLUMN reservations integer DEFAULT 0 NOT NULL CHECK (reservations >= 0);
UPDATE budget b SET reservations = o.number FROM (
    SELECT l.workspace_id, k.scope, k.subject, k.period, count(*) AS number
    FROM run r JOIN ledger l ON l.workspace_id = r.workspace_id AND l.run_id = r.run_id AND l.kind = 'reserve',
    LATERAL (VALUES ('run', l.run_id, ''), ('ticket', l.ticket_id, ''), ('agent_day', l.agent_id, l.day),
    ('workspace_month', '', l.month)) AS k (scope, subject, period)
    WHERE r.ended_at IS NULL AND NOT EXISTS (
        SELECT FROM ledger e WHERE e.workspace_id = l.workspace_id AND e.run_id = l.run_id AND e.cost_id = l.cost_id
        AND e.kind IN ('settle', 'release'))
    GROUP BY 1, 2, 3, 4
) o
WHERE b.workspace_id = o.workspace_id AND b.scope = o.scope AND b.subject = o.subject AND b.period = o.period;
"""


def upgrade() -> None:
    """Count those that are open now."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Tell them by their sums again."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE budget DROP COLUMN reservations; RESET ROLE")
