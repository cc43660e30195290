-- The audit log. An audit row is made by a trigger on `event`, in the transaction of the act, and by nothing else: no role
-- of the product may insert, change or delete one. A sealer gives settled rows their places in one Merkle tree per
-- installation (RFC 6962), whose checkpoints are signed.

SET ROLE mission_control_owner;

-- What checkpoints call this log; a name of its own keeps those of two installations apart.
ALTER TABLE installation ADD COLUMN origin text DEFAULT 'mission-control/' || gen_random_uuid() NOT NULL;

-- `content` is kept as the very text that `digest` was made of. Without `salt`, nobody can guess it from the digest.
CREATE TABLE audit (
    workspace_id text NOT NULL,
    id bigint NOT NULL,
    epoch integer DEFAULT mc_epoch() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    actor text NOT NULL,
    actor_kind text NOT NULL,
    action text NOT NULL,
    subject_kind text NOT NULL,
    subject_id text NOT NULL,
    correlation_id text NOT NULL,
    git_sha text,
    config_hash text,
    digest bytea NOT NULL,
    salt bytea,
    content text,
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX audit_place ON audit (epoch, xid, id);
CREATE INDEX audit_newest ON audit (workspace_id, created_at, id);
CREATE INDEX audit_actor ON audit (workspace_id, actor, created_at, id);
CREATE INDEX audit_subject ON audit (workspace_id, subject_id, created_at, id);

CREATE TABLE audit_leaf (
    tree_index bigint PRIMARY KEY,
    workspace_id text NOT NULL,
    seq bigint NOT NULL,
    id bigint NOT NULL,
    leaf bytea NOT NULL,
    UNIQUE (workspace_id, tree_index),
    UNIQUE (workspace_id, id)
);

-- Every eighth level above the leaves: any hash of the tree follows from at most 128 that are kept.
CREATE TABLE audit_node (
    level integer NOT NULL,
    tree_index bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (level, tree_index)
);

-- `epoch`, `xid` and `id` are the place of the last row that it covers.
CREATE TABLE audit_checkpoint (
    size bigint PRIMARY KEY,
    note text NOT NULL,
    key_id text NOT NULL,
    epoch integer NOT NULL,
    xid xid8 NOT NULL,
    id bigint NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL
);

CREATE TABLE audit_mirrored (
    size bigint PRIMARY KEY,
    created_at timestamptz DEFAULT now() NOT NULL
);

-- What kind of principal an event's actor is.
CREATE FUNCTION mc_kind_of(workspace text, who text) RETURNS text LANGUAGE sql STABLE SET search_path = public AS $$
    SELECT kind FROM api_key WHERE workspace_id = workspace AND principal = who ORDER BY created_at DESC LIMIT 1
$$;

-- What a sealed row commits to. `models.domain.audit.leaf_of` says the same in Python.
CREATE FUNCTION mc_audit_leaf(a audit, seq bigint) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256('\x00'::bytea || convert_to(json_build_array(
        a.workspace_id, seq, a.id, a.epoch, a.xid::text,
        to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        a.actor, a.actor_kind, a.action, a.subject_kind, a.subject_id, a.correlation_id, a.git_sha, a.config_hash,
        encode(a.digest, 'hex'))::text, 'UTF8'))
$$;

-- Place and time are taken here, whatever the event says, so that no row can slip in among sealed ones. The end of a
-- stage carries the signature of its record. Statements are few and simple: every act waits for this.
CREATE FUNCTION mc_audit_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    about text := CASE WHEN NEW.subject_kind = 'mission' THEN NEW.subject_id ELSE NEW.data ->> 'mission_id' END;
    kind text := 'system';
    said jsonb;
    sha text;
    hash text;
    salt bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
    words text;
BEGIN
    IF NEW.actor NOT IN ('worker', 'reconciler', 'policy', 'first-start') THEN
        kind := mc_kind_of(NEW.workspace_id, NEW.actor);
    END IF;
    IF NEW.type IN ('stage.passed', 'stage.failed', 'stage.skipped') THEN
        SELECT s.git_sha, s.config_hash, NEW.data || jsonb_build_object('record', jsonb_build_object(
            'digest', s.digest, 'signature', s.signature, 'key_id', s.key_id, 'log', s.log_digest,
            'evidence', coalesce(s.result -> 'evidence', '[]'))) INTO sha, hash, said
        FROM stage s
        WHERE s.workspace_id = NEW.workspace_id AND s.mission_id = NEW.subject_id AND s.stage = NEW.data ->> 'stage'
            AND s.round = (NEW.data -> 'round')::integer AND s.candidate = (NEW.data -> 'candidate')::integer;
    END IF;
    IF about IS NOT NULL AND (sha IS NULL OR hash IS NULL) THEN
        SELECT coalesce(sha, m.context ->> 'git_sha'), coalesce(hash, m.context ->> 'config_hash') INTO sha, hash
        FROM mission m WHERE m.workspace_id = NEW.workspace_id AND m.mission_id = about;
    END IF;
    words := coalesce(said, NEW.data)::text;
    INSERT INTO audit (workspace_id, id, actor, actor_kind, action, subject_kind, subject_id, correlation_id, git_sha,
        config_hash, digest, salt, content)
    VALUES (NEW.workspace_id, NEW.id, NEW.actor, coalesce(kind, 'unknown'), NEW.type, NEW.subject_kind, NEW.subject_id,
        NEW.correlation_id, sha, hash, sha256(salt || convert_to(words, 'UTF8')), salt, words);
    RETURN NULL;
END $$;

-- Reports and samples are what somebody outside says of the world: no act, and written by whoever has a key for it.
CREATE TRIGGER event_is_audited AFTER INSERT ON event FOR EACH ROW
    WHEN (NEW.type NOT IN ('metric.observed', 'subsystem.error', 'subsystem.report'))
    EXECUTE FUNCTION mc_audit_event();

-- Removes what a row says, with its salt, and never without an audit row about it. Its leaf stays, and so do all proofs.
CREATE FUNCTION mc_redact_audit(row_id bigint, who text, correlation text, why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    here text := current_setting('app.workspace', true);
BEGIN
    UPDATE audit SET content = NULL, salt = NULL WHERE workspace_id = here AND id = row_id AND content IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    VALUES (here, 'audit.redacted', 'audit', row_id::text, who, correlation, jsonb_build_object('reason', why));
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION mc_redact_audit(bigint, text, text, text), mc_audit_event() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mc_redact_audit(bigint, text, text, text) TO mission_control_app;

-- These hold for the owner, too. A superuser can switch triggers off: what he changes then is found by verifying.
CREATE FUNCTION mc_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE FUNCTION mc_audit_is_redacted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.content IS NOT NULL OR NEW.salt IS NOT NULL
        OR (to_jsonb(NEW) - '{content,salt}'::text[]) <> (to_jsonb(OLD) - '{content,salt}'::text[]) THEN
        RAISE EXCEPTION 'audit is only added to; content may be redacted' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_is_redacted BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION mc_audit_is_redacted();
CREATE TRIGGER audit_is_only_added_to BEFORE DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION mc_is_only_added_to();
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['audit_leaf', 'audit_node', 'audit_checkpoint', 'audit_mirrored'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION mc_is_only_added_to()', name || '_is_only_added_to', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['audit', 'audit_leaf'] LOOP
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

GRANT SELECT ON audit, audit_leaf, audit_checkpoint, audit_mirrored TO mission_control_app;
GRANT SELECT ON audit TO mission_control_system;
GRANT SELECT, INSERT ON audit_leaf, audit_node, audit_checkpoint, audit_mirrored TO mission_control_system;

-- The operators' acts, under the names of the first console.
CREATE VIEW operator_audit_log WITH (security_invoker = true) AS
SELECT workspace_id, id, actor AS user_id,
    CASE WHEN subject_kind = 'session' THEN subject_id END AS session_id,
    content::jsonb ->> 'provider' AS provider,
    action, coalesce(content::jsonb ->> 'content', content::jsonb ->> 'detail') AS content,
    coalesce(content::jsonb, '{}') AS metadata, created_at
FROM audit WHERE actor_kind = 'human';
GRANT SELECT ON operator_audit_log TO mission_control_app, mission_control_system;

RESET ROLE;
