"""Policies with versions, the verdicts given under them, and decisions that several people answer."""

from alembic import op

revision = "0009"
down_revision = "0008"

_TABLES = """
CREATE TABLE policy_version (
    workspace_id text NOT NULL REFERENCES workspace,
    version integer NOT NULL,
    source text NOT NULL,
    digest text NOT NULL,
    note text DEFAULT '' NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, version)
);
CREATE TABLE policy_active (
    workspace_id text NOT NULL PRIMARY KEY,
    version integer NOT NULL,
    activated_by text NOT NULL,
    activated_at timestamptz DEFAULT now() NOT NULL,
    FOREIGN KEY (workspace_id, version) REFERENCES policy_version
);
-- No key names its policy: all missions would lock that one row. It is written only where the version is in force.
CREATE TABLE verdict (
    workspace_id text NOT NULL,
    verdict_id text NOT NULL,
    policy_version integer NOT NULL,
    action text NOT NULL,
    input jsonb NOT NULL,
    risk text NOT NULL,
    outcome text NOT NULL,
    rules jsonb NOT NULL,
    reasons jsonb NOT NULL,
    mission_id text,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, verdict_id),
    FOREIGN KEY (workspace_id, mission_id) REFERENCES mission
);
CREATE INDEX verdict_newest ON verdict (workspace_id, at DESC, verdict_id DESC);
CREATE TABLE decision_answer (
    workspace_id text NOT NULL,
    decision_id text NOT NULL,
    principal text NOT NULL,
    answer text NOT NULL,
    explanation text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, decision_id, principal),
    FOREIGN KEY (workspace_id, decision_id) REFERENCES decision
);

CREATE FUNCTION mc_policy_version_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % of the policy of % stands as it is: make another', OLD.version, OLD.workspace_id;
END $$;
CREATE TRIGGER policy_version_is_final BEFORE UPDATE OR DELETE ON policy_version
    FOR EACH ROW EXECUTE FUNCTION mc_policy_version_is_final();

ALTER TABLE decision
    ADD COLUMN terms jsonb DEFAULT '{}'::jsonb NOT NULL,
    ADD COLUMN single_operator boolean DEFAULT false NOT NULL,
    ADD COLUMN half_time_told_at timestamptz,
    ADD COLUMN risk_rank integer GENERATED ALWAYS AS (array_position(ARRAY['GREEN', 'YELLOW', 'RED'], risk)) STORED;
CREATE INDEX decision_by_risk ON decision (workspace_id, risk_rank, requested_at, decision_id);
CREATE INDEX decision_expiring ON decision (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL;

-- What was asked, and what was answered, may not change, whoever asks; that the mission has heard of it is noted later.
CREATE FUNCTION mc_decision_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.kind, OLD.mission_id, OLD.risk, OLD.reasons, OLD.question, OLD.binding, OLD.terms, OLD.requested_by,
        OLD.requested_at, OLD.expires_at)
       IS DISTINCT FROM (NEW.kind, NEW.mission_id, NEW.risk, NEW.reasons, NEW.question, NEW.binding, NEW.terms,
        NEW.requested_by, NEW.requested_at, NEW.expires_at) THEN
        RAISE EXCEPTION 'what decision % asks stands as it was put', OLD.decision_id;
    END IF;
    IF OLD.status <> 'pending'
       AND (OLD.status, OLD.resolved_by, OLD.resolved_at, OLD.explanation, OLD.single_operator)
       IS DISTINCT FROM (NEW.status, NEW.resolved_by, NEW.resolved_at, NEW.explanation, NEW.single_operator) THEN
        RAISE EXCEPTION 'decision % was %', OLD.decision_id, OLD.status;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER decision_is_final BEFORE UPDATE ON decision FOR EACH ROW EXECUTE FUNCTION mc_decision_is_final();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['policy_version', 'policy_active', 'verdict', 'decision_answer'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY one_workspace ON %I TO mission_control_app '
            'USING (workspace_id = current_setting(''app.workspace'', true)) '
            'WITH CHECK (workspace_id = current_setting(''app.workspace'', true))', name);
        EXECUTE format(
            'CREATE POLICY all_workspaces ON %I TO mission_control_system, mission_control_owner '
            'USING (true) WITH CHECK (true)', name);
    END LOOP;
END $$;
GRANT SELECT, INSERT ON policy_version, verdict, decision_answer TO mission_control_app, mission_control_system;
GRANT SELECT, INSERT, UPDATE ON policy_active TO mission_control_app, mission_control_system;
"""


def upgrade() -> None:
    """Make the tables; what is pending is answered as before, by one operator."""
    op.execute("SET ROLE mission_control_owner")
    _run(_TABLES)
    op.execute("RESET ROLE")


def downgrade() -> None:
    """Forget policies, verdicts and single answers."""
    op.execute("SET ROLE mission_control_owner")
    op.execute("DROP TABLE decision_answer, verdict, policy_active, policy_version")
    op.execute("DROP TRIGGER decision_is_final ON decision")
    op.execute("DROP FUNCTION mc_policy_version_is_final, mc_decision_is_final")
    op.execute(
        "ALTER TABLE decision DROP COLUMN terms, DROP COLUMN single_operator, DROP COLUMN half_time_told_at,"
        " DROP COLUMN risk_rank"
    )
    op.execute("RESET ROLE")


def _run(script: str) -> None:
    """Run several statements at once; the driver's own cursor, because SQLAlchemy would read % as a placeholder."""
    op.get_bind().connection.cursor().execute(script)
