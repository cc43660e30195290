"""Open reservations have a row each for as long as they are open, so that none is looked for among all of a run's.

Of a ledger that is only added to, what is open is what has no end yet: a run with a million costs has a million to look
up. When something of a run was last settled or released stands with its counters for the same reason.
"""

from alembic import op

revision = "0046"
down_revision = "0045"

# Its rows live shortly, and the table stays as large as it was: an empty one would be read whole, by plans that live on
# when it has grown.
_UP = """
CREATE TABLE open_reservation (
    workspace_id text NOT NULL,
    run_id text NOT NULL,
    cost_id text NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, run_id, cost_id)
) WITH (vacuum_truncate = false);
GRANT SELECT, INSERT, DELETE ON open_reservation TO mission_control_app, mission_control_system;
ALTER TABLE open_reservation ENABLE ROW LEVEL SECURITY;
ALTER TABLE open_reservation FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON open_reservation TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON open_reservation TO mission_control_system, mission_control_owner
    USING (true) WITH CHECK (true);
ALTER TABLE budget ADD COLUMN finished_at timestamptz;

INSERT INTO open_reservation
SELECT l.workspace_id, l.run_id, l.cost_id, l.held_until
FROM run r JOIN ledger l ON l.workspace_id = r.workspace_id AND l.run_id = r.run_id
WHERE r.ended_at IS NULL AND l.kind = 'reserve' AND l.held_until IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger e WHERE e.workspace_id = l.workspace_id AND e.run_id = l.run_id AND e.cost_id = l.cost_id
    AND e.kind IN ('settle', 'release'));
UPDATE budget b SET finished_at = f.at FROM (
    SELECT l.workspace_id, l.run_id, max(l.at) AS at
    FROM run r JOIN ledger l ON l.workspace_id = r.workspace_id AND l.run_id = r.run_id
    WHERE r.ended_at IS NULL AND l.kind IN ('settle', 'release') GROUP BY 1, 2
) f WHERE b.workspace_id = f.workspace_id AND b.scope = 'run' AND b.subject = f.run_id AND b.period = '';
"""


def upgrade() -> None:
    """Note those that are open."""
    op.execute(f"SET ROLE mission_control_owner; {_UP} RESET ROLE")


def downgrade() -> None:
    """Find them by reading."""
    op.execute(
        "SET ROLE mission_control_owner; DROP TABLE open_reservation; ALTER TABLE budget DROP COLUMN finished_at;"
        " RESET ROLE"
    )
