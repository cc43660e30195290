-- The mission spine: roles, tables, row-level security.
--
-- Three roles: owner holds the tables and is used by migrations only; app is what the API and the workers are, and sees
-- one workspace at a time; system is the event tail and the reconciler, which see all. None of them logs in: a process
-- connects as whatever DATABASE_URL says and becomes one of them.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['mission_control_owner', 'mission_control_app', 'mission_control_system'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles belong to the cluster: another database of it made them
        END;
        BEGIN
            EXECUTE format('GRANT %I TO CURRENT_USER', name);
        EXCEPTION WHEN OTHERS THEN
            -- two databases of one cluster may be migrated at once
            IF SQLSTATE <> 'XX000' AND SQLSTATE <> '23505' THEN RAISE; END IF;
        END;
    END LOOP;
END $$;

GRANT USAGE, CREATE ON SCHEMA public TO mission_control_owner;
GRANT USAGE ON SCHEMA public TO mission_control_app, mission_control_system;

SET ROLE mission_control_owner;

-- Time windows read the clock here and nowhere else, so that a test can move it.
CREATE FUNCTION mc_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';

CREATE TABLE base_result (
    workspace_id text NOT NULL,
    repository_id text NOT NULL,
    result_key text NOT NULL,
    digest text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, repository_id, result_key)
);

CREATE TABLE blob (
    workspace_id text NOT NULL,
    digest text NOT NULL,
    size INTEGER NOT NULL,
    content BYTEA NOT NULL,
    removed text,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, digest)
);

CREATE TABLE candidate (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    number INTEGER NOT NULL,
    digest text,
    ref text,
    author text NOT NULL,
    outcome text,
    reason text,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, mission_id, number)
);

CREATE TABLE evidence (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    evidence_id text NOT NULL,
    kind text NOT NULL,
    stage text NOT NULL,
    digest text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, mission_id, evidence_id)
);

CREATE TABLE idempotency (
    workspace_id text NOT NULL,
    idempotency_key text NOT NULL,
    route text NOT NULL,
    digest text NOT NULL,
    status_code INTEGER,
    response text,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, idempotency_key)
);

CREATE TABLE installation (
    singleton BOOLEAN NOT NULL,
    epoch INTEGER NOT NULL,
    system_identifier text NOT NULL,
    config_hash text,
    PRIMARY KEY (singleton)
);

CREATE TABLE log_chunk (
    workspace_id text NOT NULL,
    log_id text NOT NULL,
    seq INTEGER NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (workspace_id, log_id, seq)
);

CREATE TABLE merge_fence (
    workspace_id text NOT NULL,
    repository_id text NOT NULL,
    branch text NOT NULL,
    token BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, repository_id, branch)
);

CREATE TABLE metric_observation (
    workspace_id text NOT NULL,
    observation_id text NOT NULL,
    metric_id text NOT NULL,
    value FLOAT NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    mission_id text,
    phase text,
    source text NOT NULL,
    PRIMARY KEY (workspace_id, observation_id)
);

CREATE TABLE mission_counter (
    workspace_id text NOT NULL,
    day text NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, day)
);

CREATE TABLE remediation_event (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    entry_id text NOT NULL,
    stage text,
    actor text NOT NULL,
    action text NOT NULL,
    result text NOT NULL,
    git_sha text,
    config_hash text,
    at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, mission_id, entry_id)
);

CREATE TABLE stage (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    round INTEGER NOT NULL,
    candidate INTEGER NOT NULL,
    stage text NOT NULL,
    position INTEGER NOT NULL,
    status text NOT NULL,
    attempt INTEGER NOT NULL,
    reason text NOT NULL,
    inputs JSONB DEFAULT '{}'::jsonb NOT NULL,
    result JSONB DEFAULT '{}'::jsonb NOT NULL,
    git_sha text,
    config_hash text,
    log_id text,
    log_digest text,
    digest text,
    signature text,
    key_id text,
    started_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (workspace_id, mission_id, round, candidate, stage)
);

CREATE TABLE test_result (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    run text NOT NULL,
    round INTEGER NOT NULL,
    candidate INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    name text NOT NULL,
    outcome text NOT NULL,
    duration_ms FLOAT NOT NULL,
    log_digest text,
    PRIMARY KEY (workspace_id, mission_id, run, round, candidate, ordinal)
);

CREATE TABLE workbench (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    host text NOT NULL,
    opened_at timestamptz DEFAULT now() NOT NULL,
    closed_at timestamptz,
    PRIMARY KEY (workspace_id, mission_id, host)
);

CREATE TABLE workspace (
    workspace_id text NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id),
    UNIQUE (slug)
);

CREATE TABLE api_key (
    workspace_id text NOT NULL,
    key_id text NOT NULL,
    digest text NOT NULL,
    principal text NOT NULL,
    kind text NOT NULL,
    role text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (workspace_id, key_id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (workspace_id),
    UNIQUE (digest)
);

CREATE TABLE browser_session (
    workspace_id text NOT NULL,
    digest text NOT NULL,
    key_id text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, digest),
    FOREIGN KEY(workspace_id, key_id) REFERENCES api_key (workspace_id, key_id)
);

CREATE TABLE capa (
    workspace_id text NOT NULL,
    capa_id text NOT NULL,
    mission_id text,
    cause_key text,
    title text NOT NULL,
    cause text NOT NULL,
    corrective text NOT NULL,
    preventive text NOT NULL,
    severity text NOT NULL,
    owner text,
    status text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, capa_id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (workspace_id)
);

CREATE TABLE decision (
    workspace_id text NOT NULL,
    decision_id text NOT NULL,
    kind text NOT NULL,
    mission_id text,
    round INTEGER NOT NULL,
    candidate INTEGER NOT NULL,
    status text NOT NULL,
    risk text NOT NULL,
    reasons JSONB DEFAULT '[]'::jsonb NOT NULL,
    question JSONB DEFAULT '{}'::jsonb NOT NULL,
    binding JSONB DEFAULT '{}'::jsonb NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    resolved_by text,
    resolved_at timestamptz,
    explanation text,
    acknowledged_at timestamptz,
    PRIMARY KEY (workspace_id, decision_id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (workspace_id)
);

CREATE TABLE mission (
    workspace_id text NOT NULL,
    mission_id text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    repository_id text NOT NULL,
    subsystem_id text NOT NULL,
    severity text NOT NULL,
    severity_rank INTEGER NOT NULL,
    status text NOT NULL,
    outcome text,
    reason text,
    stage text,
    paused BOOLEAN NOT NULL,
    control_version INTEGER NOT NULL,
    mission_type text NOT NULL,
    branch text NOT NULL,
    env text NOT NULL,
    protected BOOLEAN NOT NULL,
    context JSONB DEFAULT '{}'::jsonb NOT NULL,
    commands JSONB DEFAULT '{}'::jsonb NOT NULL,
    symptoms JSONB DEFAULT '[]'::jsonb NOT NULL,
    acceptance_criteria JSONB DEFAULT '{}'::jsonb NOT NULL,
    dependencies JSONB DEFAULT '[]'::jsonb NOT NULL,
    trust_requirements JSONB DEFAULT '{}'::jsonb NOT NULL,
    overrides JSONB DEFAULT '{}'::jsonb NOT NULL,
    approval_timeout_minutes FLOAT,
    detected_by text,
    assigned_to text,
    created_by text NOT NULL,
    correlation_id text NOT NULL,
    retry_of text,
    run_id text,
    host text,
    merge_sha text,
    revert_sha text,
    created_at timestamptz DEFAULT now() NOT NULL,
    claimed_at timestamptz,
    started_at timestamptz,
    merged_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (workspace_id, mission_id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (workspace_id)
);

CREATE TABLE repository (
    workspace_id text NOT NULL,
    repository_id text NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    target_branch text NOT NULL,
    protected BOOLEAN NOT NULL,
    env text NOT NULL,
    commands JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    PRIMARY KEY (workspace_id, repository_id),
    FOREIGN KEY(workspace_id) REFERENCES workspace (workspace_id)
);

CREATE UNIQUE INDEX repository_name ON repository (workspace_id, name);
CREATE UNIQUE INDEX repository_url ON repository (workspace_id, url);
CREATE INDEX repository_newest ON repository (workspace_id, created_at DESC, repository_id DESC);

ALTER TABLE mission
    ADD FOREIGN KEY (workspace_id, repository_id) REFERENCES repository,
    ADD CHECK (status IN ('open', 'in_progress', 'observing', 'resolved', 'escalated')),
    ADD CHECK ((outcome IS NOT NULL) = (status IN ('resolved', 'escalated')));
CREATE INDEX mission_newest ON mission (workspace_id, created_at DESC, seq DESC);
CREATE INDEX mission_by_status ON mission (workspace_id, status, created_at DESC, seq DESC);
CREATE INDEX mission_by_severity ON mission (workspace_id, severity_rank, created_at, seq);
CREATE INDEX mission_queue ON mission (workspace_id, severity_rank, created_at, seq)
    WHERE status = 'open' AND claimed_at IS NULL;
CREATE INDEX mission_running ON mission (created_at)
    WHERE status IN ('in_progress', 'observing') OR (status = 'open' AND run_id IS NOT NULL);

ALTER TABLE candidate ADD FOREIGN KEY (workspace_id, mission_id) REFERENCES mission;
ALTER TABLE stage ADD FOREIGN KEY (workspace_id, mission_id) REFERENCES mission;
ALTER TABLE evidence ADD FOREIGN KEY (workspace_id, mission_id) REFERENCES mission;
ALTER TABLE test_result ADD FOREIGN KEY (workspace_id, mission_id) REFERENCES mission;
ALTER TABLE remediation_event ADD FOREIGN KEY (workspace_id, mission_id) REFERENCES mission;
CREATE INDEX remediation_event_order ON remediation_event (workspace_id, mission_id, at);

ALTER TABLE metric_observation ADD FOREIGN KEY (workspace_id) REFERENCES workspace;
CREATE INDEX metric_observation_window ON metric_observation (workspace_id, metric_id, at DESC);
CREATE INDEX metric_observation_newest ON metric_observation (workspace_id, at DESC, observation_id DESC);
CREATE INDEX metric_observation_mission ON metric_observation (workspace_id, mission_id) WHERE mission_id IS NOT NULL;

CREATE INDEX decision_newest ON decision (workspace_id, requested_at DESC, decision_id DESC);
CREATE INDEX decision_by_status ON decision (workspace_id, status, requested_at DESC, decision_id DESC);
CREATE INDEX decision_mission ON decision (workspace_id, mission_id);
CREATE INDEX decision_unacknowledged ON decision (resolved_at) WHERE status <> 'pending' AND acknowledged_at IS NULL;

CREATE UNIQUE INDEX capa_once ON capa (workspace_id, mission_id, cause_key) WHERE cause_key IS NOT NULL;
CREATE INDEX capa_newest ON capa (workspace_id, created_at DESC, capa_id DESC);

CREATE INDEX workbench_open ON workbench (host) WHERE closed_at IS NULL;

-- A stage's record is evidence: once ended it may not change, whoever asks.
CREATE FUNCTION mc_stage_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL AND NEW IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'stage % of % has ended and is signed', OLD.stage, OLD.mission_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stage_is_final BEFORE UPDATE ON stage FOR EACH ROW EXECUTE FUNCTION mc_stage_is_final();

-- Events. Identity values commit out of order, so readers order by (epoch, xid, id) and wait for settled xids.
CREATE FUNCTION mc_epoch() RETURNS integer LANGUAGE sql STABLE AS 'SELECT epoch FROM installation';

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    epoch integer NOT NULL DEFAULT mc_epoch(),
    workspace_id text NOT NULL,
    type text NOT NULL,
    subject_kind text NOT NULL,
    subject_id text NOT NULL,
    actor text NOT NULL,
    correlation_id text NOT NULL,
    data jsonb NOT NULL DEFAULT '{}'::jsonb,
    PRIMARY KEY (id, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX event_place ON event (epoch, xid, id);
CREATE INDEX event_workspace ON event (workspace_id, epoch, xid, id);
CREATE INDEX event_subject ON event (workspace_id, subject_id, epoch, xid, id);
CREATE TABLE event_default PARTITION OF event DEFAULT;

CREATE FUNCTION mc_event_partitions(ahead integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE
    month date;
    name text;
BEGIN
    FOR i IN 0..ahead LOOP
        month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i))::date;
        name := 'event_' || to_char(month, 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF event FOR VALUES FROM (%L) TO (%L)',
                name, month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00'
            );
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        END IF;
    END LOOP;
END $$;

-- Stored bytes never change. What held a secret may lose them, and a mark says why: nothing else is granted on blob.
CREATE FUNCTION mc_remove_blob(name text, why text) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = public AS $$
    UPDATE blob SET content = '', removed = why
    WHERE workspace_id = current_setting('app.workspace', true) AND digest = name AND removed IS NULL
$$;
REVOKE ALL ON FUNCTION mc_remove_blob(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mc_remove_blob(text, text) TO mission_control_app;

CREATE FUNCTION mc_drop_event_partitions(before date) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE
    name text;
    dropped integer := 0;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'event'::regclass AND c.relname ~ '^event_[0-9]{4}_[0-9]{2}$'
          AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= before
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION mc_event_partitions(integer), mc_drop_event_partitions(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mc_event_partitions(integer), mc_drop_event_partitions(date) TO mission_control_system;

-- Row-level security on every table that has a workspace. An empty setting is no workspace.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'workspace_id'
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        IF name NOT LIKE 'event\_%' THEN
            EXECUTE format(
                'CREATE POLICY one_workspace ON %I TO mission_control_app '
                'USING (workspace_id = current_setting(''app.workspace'', true)) '
                'WITH CHECK (workspace_id = current_setting(''app.workspace'', true))', name);
            EXECUTE format(
                'CREATE POLICY all_workspaces ON %I TO mission_control_system, mission_control_owner '
                'USING (true) WITH CHECK (true)', name);
        END IF;
    END LOOP;
END $$;

GRANT SELECT ON installation TO mission_control_app;
GRANT SELECT, INSERT, UPDATE ON installation TO mission_control_system;
GRANT SELECT ON workspace, api_key TO mission_control_app;
GRANT SELECT, INSERT, UPDATE ON workspace, api_key TO mission_control_system;
GRANT SELECT, INSERT ON event, evidence, test_result, metric_observation, remediation_event, blob
    TO mission_control_app, mission_control_system;
GRANT SELECT, INSERT, UPDATE ON repository, mission_counter, mission, candidate, stage, workbench, decision, capa,
    merge_fence, base_result, idempotency TO mission_control_app, mission_control_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_chunk TO mission_control_app, mission_control_system;
GRANT DELETE ON idempotency TO mission_control_system;
GRANT SELECT, INSERT, DELETE ON browser_session TO mission_control_system;

SELECT mc_event_partitions(3);

INSERT INTO installation (singleton, epoch, system_identifier)
VALUES (true, 1, (SELECT system_identifier::text FROM pg_control_system()));

RESET ROLE;

GRANT SELECT ON alembic_version TO mission_control_app, mission_control_system;
