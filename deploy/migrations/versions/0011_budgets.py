"""Budgets: runs and their tool calls, limits and the counters that hold them, and the ledger of what was paid."""

from alembic import op

revision = "0011"
down_revision = "0010"

_TABLES = ("run", "tool_call", "budget_limit", "budget", "ledger")

_MAKE = """
SET ROLE mission_control_owner;

CREATE TABLE run (
    workspace_id text NOT NULL,
    run_id text NOT NULL,
    agent_id text,
    level text,
    ticket_id text,
    category text,
    mission_id text,
    status text,
    reason text,
    blocked_by text,
    blocked_period text,
    created_by text NOT NULL,
    started_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (workspace_id, run_id),
    FOREIGN KEY (workspace_id) REFERENCES workspace (workspace_id),
    CHECK (status IN ('success', 'failed', 'blocked')),
    CHECK (ended_at IS NULL OR status IS NOT NULL)
);
CREATE INDEX run_newest ON run (workspace_id, started_at DESC, run_id DESC);
CREATE INDEX run_open ON run (workspace_id, run_id) WHERE ended_at IS NULL;

CREATE TABLE tool_call (
    workspace_id text NOT NULL,
    run_id text NOT NULL,
    number integer NOT NULL,
    tool text NOT NULL,
    error text,
    duration_ms integer,
    cost_id text,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, run_id, number),
    FOREIGN KEY (workspace_id, run_id) REFERENCES run (workspace_id, run_id)
);

CREATE TABLE budget_limit (
    workspace_id text NOT NULL,
    scope text NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    cap_usd numeric,
    cap_tokens bigint,
    set_by text NOT NULL,
    set_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, scope, owner, name),
    FOREIGN KEY (workspace_id) REFERENCES workspace (workspace_id)
);

-- What a limit holds: half of each page is left free, for these rows are written all the time.
CREATE TABLE budget (
    workspace_id text NOT NULL,
    scope text NOT NULL,
    subject text NOT NULL,
    period text NOT NULL,
    agent_id text,
    kind text,
    cap_usd numeric,
    cap_tokens bigint,
    settled_usd numeric DEFAULT 0 NOT NULL,
    reserved_usd numeric DEFAULT 0 NOT NULL,
    settled_tokens bigint DEFAULT 0 NOT NULL,
    reserved_tokens bigint DEFAULT 0 NOT NULL,
    calls bigint DEFAULT 0 NOT NULL,
    crossed boolean DEFAULT false NOT NULL,
    crossings integer DEFAULT 0 NOT NULL,
    PRIMARY KEY (workspace_id, scope, subject, period),
    FOREIGN KEY (workspace_id) REFERENCES workspace (workspace_id),
    CHECK (reserved_usd >= 0 AND reserved_tokens >= 0)
) WITH (fillfactor = 50);

-- No foreign key: each row is written from its run, and all that a workspace spends would share a lock on one row.
CREATE TABLE ledger (
    workspace_id text NOT NULL,
    run_id text NOT NULL,
    cost_id text NOT NULL,
    kind text NOT NULL,
    agent_id text,
    ticket_id text,
    mission_id text,
    model text,
    tokens_in bigint NOT NULL,
    tokens_out bigint NOT NULL,
    calls bigint NOT NULL,
    usd numeric NOT NULL,
    unpriced boolean DEFAULT false NOT NULL,
    overrun boolean DEFAULT false NOT NULL,
    holder text NOT NULL,
    held_until timestamptz,
    reason text,
    day text NOT NULL,
    month text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, run_id, cost_id, kind),
    CHECK (kind IN ('reserve', 'settle', 'release', 'adjust')),
    CHECK (scale(usd) <= 9 AND (usd >= 0 OR kind = 'adjust')),
    CHECK (tokens_in >= 0 AND tokens_out >= 0 AND calls >= 0)
);
CREATE INDEX ledger_by_day ON ledger (workspace_id, day);
CREATE INDEX ledger_by_mission ON ledger (workspace_id, mission_id) WHERE mission_id IS NOT NULL;

-- What was paid was paid: the grants leave no way to change it, and for whoever passes by them there is this.
CREATE FUNCTION mc_ledger_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only added to: correct it by a row of kind adjust';
END $$;
CREATE TRIGGER ledger_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION mc_ledger_is_final();

GRANT SELECT, INSERT ON ledger, tool_call TO mission_control_app, mission_control_system;
GRANT SELECT, INSERT, UPDATE ON run, budget, budget_limit TO mission_control_app, mission_control_system;
"""

_CLOSE = """
ALTER TABLE {0} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {0} FORCE ROW LEVEL SECURITY;
CREATE POLICY one_workspace ON {0} TO mission_control_app
    USING (workspace_id = current_setting('app.workspace', true))
    WITH CHECK (workspace_id = current_setting('app.workspace', true));
CREATE POLICY all_workspaces ON {0} TO mission_control_system, mission_control_owner USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    """Make the tables, closed to other workspaces."""
    op.execute(_MAKE)
    for table in _TABLES:
        op.execute(_CLOSE.format(table))
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Forget what was spent."""
    op.execute("SET ROLE mission_control_owner")
    op.execute("DROP TABLE ledger, budget, budget_limit, tool_call, run")
    op.execute("DROP FUNCTION mc_ledger_is_final()")
    op.execute("RESET ROLE")
