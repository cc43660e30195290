"""Every name of the product's own parts is one of the system in the audit log: `system`, too, was somebody unknown."""

from alembic import op

revision = "0035"
down_revision = "0034"

_NAMES = "'first-start', 'policy', 'reconciler', 'worker'"
# As `models.domain.names.SYSTEM_NAMES`.
_ALL_NAMES = f"{_NAMES}, 'system'"
# Place and time are the table's, and not the event's. Statements are few and simple: every act waits for this.
_FUNCTION = """
CREATE OR REPLACE FUNCTION mc_audit_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    about text := CASE WHEN NEW.subject_kind = 'mission' THEN NEW.subject_id ELSE NEW.data ->> 'mission_id' END;
    kind text := 'system';
    said jsonb;
    sha text;
    hash text;
    salt bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
    words text;
BEGIN
    IF NEW.actor NOT IN ({names}) THEN
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
"""


def upgrade() -> None:
    """Name it in rows to come: those that are there stay as they were sealed."""
    _replace(_ALL_NAMES)


def downgrade() -> None:
    """Leave it out again."""
    _replace(_NAMES)


def _replace(names: str) -> None:
    op.execute(f"SET ROLE mission_control_owner; {_FUNCTION.format(names=names)} RESET ROLE")
