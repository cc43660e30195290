"""The statements about a stage's record. Those that open, close and write it are one each, with all that goes with it.

A stage that answers at once spends most of its time in them. They are in psycopg's own form, so that they run
alone as well as within a session.
"""

_KEY = """workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s AND round = %(round)s
        AND candidate = %(candidate)s AND stage = %(stage)s"""

# Gives the record that is open now, or one that had ended before; nothing when that one ended in this very moment.
OPEN = f"""
    WITH known AS (
        SELECT * FROM stage WHERE {_KEY}
    ), opened AS (
        INSERT INTO stage
        (workspace_id, mission_id, round, candidate, stage, position, status, attempt, reason, log_id, started_at)
        VALUES (%(workspace_id)s, %(mission_id)s, %(round)s, %(candidate)s, %(stage)s, %(position)s, 'running',
        %(attempt)s, '', %(log_id)s, clock_timestamp())
        ON CONFLICT ON CONSTRAINT stage_pkey
        DO UPDATE SET attempt = %(attempt)s, log_id = %(log_id)s, status = 'running' WHERE stage.ended_at IS NULL
        RETURNING *
    ), moved AS (
        UPDATE mission SET stage = %(stage)s WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s
        AND EXISTS (SELECT FROM opened) RETURNING correlation_id
    ), dropped AS (
        DELETE FROM log_chunk WHERE workspace_id = %(workspace_id)s AND log_id IN (SELECT log_id FROM known)
        AND EXISTS (SELECT FROM opened)
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, 'stage.started', 'mission', %(mission_id)s, 'worker', correlation_id,
        CAST(%(told)s AS jsonb)
        FROM moved WHERE NOT EXISTS (SELECT FROM known)
    )
    SELECT *, clock_timestamp() AS clock FROM opened
    UNION ALL
    SELECT *, clock_timestamp() FROM known WHERE ended_at IS NOT NULL
"""  # noqa: S608  # constants of this module, no input

# History, evidence and results have keys of their own, so a second try adds nothing.
_KEPT = """stored AS (
        INSERT INTO blob (workspace_id, digest, size, content)
        SELECT %(workspace_id)s, digest, length(content), content
        FROM closed, unnest(CAST(%(blob_digests)s AS text[]), CAST(%(blobs)s AS bytea[])) AS t (digest, content)
        ON CONFLICT DO NOTHING
    ), kept AS (
        INSERT INTO evidence (workspace_id, mission_id, evidence_id, kind, stage, digest)
        SELECT %(workspace_id)s, %(mission_id)s, CAST(%(entry)s AS text) || '/' || number - 1, kind, %(stage)s, digest
        FROM closed, unnest(CAST(%(kinds)s AS text[]), CAST(%(digests)s AS text[]))
        WITH ORDINALITY AS t (kind, digest, number)
        ON CONFLICT DO NOTHING
    ), noted AS (
        INSERT INTO remediation_event
        (workspace_id, mission_id, entry_id, stage, actor, action, result, git_sha, config_hash)
        SELECT %(workspace_id)s, %(mission_id)s, %(entry)s, %(stage)s, 'worker', %(stage)s, %(told_result)s,
        %(git_sha)s, %(config_hash)s
        FROM closed ON CONFLICT DO NOTHING
    )"""
_CHAIN = """(
        SELECT correlation_id FROM mission WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s
    )"""

# A large suite has tens of thousands of results, and the closing transaction seconds.
CLOSE = f"""
    WITH closed AS (
        UPDATE stage SET status = %(status)s, reason = %(reason)s, result = CAST(%(result)s AS jsonb),
        git_sha = %(git_sha)s, config_hash = %(config_hash)s, log_digest = %(log_digest)s, digest = %(digest)s,
        signature = %(signature)s, key_id = %(key_id)s, ended_at = %(ended_at)s
        WHERE {_KEY} AND ended_at IS NULL AND log_id = %(log_id)s RETURNING 1
    ), dropped AS (
        DELETE FROM log_chunk WHERE workspace_id = %(workspace_id)s AND log_id = %(log_id)s
    ), {_KEPT}, tested AS (
        INSERT INTO test_result
        (workspace_id, mission_id, run, round, candidate, ordinal, name, outcome, duration_ms, log_digest)
        SELECT %(workspace_id)s, %(mission_id)s, run, %(round)s, %(candidate)s, number - 1, name, outcome, duration_ms,
        %(log_digest)s
        FROM closed, unnest(CAST(%(runs)s AS text[]), CAST(%(names)s AS text[]), CAST(%(outcomes)s AS text[]),
        CAST(%(durations)s AS float8[])) WITH ORDINALITY AS t (run, name, outcome, duration_ms, number)
        ON CONFLICT DO NOTHING
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, %(type)s, 'mission', %(mission_id)s, 'worker', correlation_id,
        CAST(%(told)s AS jsonb)
        FROM closed, mission WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s
    )
    SELECT {_CHAIN} FROM closed
"""  # noqa: S608  # as above

# A stage that takes no time begins and ends at once; nothing when it has a record.
RECORD = f"""
    WITH closed AS (
        INSERT INTO stage (workspace_id, mission_id, round, candidate, stage, position, status, attempt, reason, result,
        git_sha, config_hash, digest, signature, key_id, started_at, ended_at)
        VALUES (%(workspace_id)s, %(mission_id)s, %(round)s, %(candidate)s, %(stage)s, %(position)s, %(status)s,
        %(attempt)s, %(reason)s, CAST(%(result)s AS jsonb), %(git_sha)s, %(config_hash)s, %(digest)s, %(signature)s,
        %(key_id)s, %(ended_at)s, %(ended_at)s)
        ON CONFLICT ON CONSTRAINT stage_pkey DO NOTHING RETURNING 1
    ), moved AS (
        UPDATE mission SET stage = %(stage)s WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s
        AND EXISTS (SELECT FROM closed)
    ), {_KEPT}, told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, t.type, 'mission', %(mission_id)s, 'worker', {_CHAIN}, CAST(t.data AS jsonb)
        FROM closed, (VALUES (1, 'stage.started', %(told_start)s), (2, %(type)s, %(told)s)) AS t (number, type, data)
        ORDER BY number
    )
    SELECT {_CHAIN} FROM closed
"""  # noqa: S608  # as above

_OF = "workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s"
OF_ROUND = f"""
    SELECT stage, candidate, status, reason, result, digest FROM stage
    WHERE {_OF} AND round = %(round)s AND ended_at IS NOT NULL ORDER BY candidate, position
"""  # noqa: S608  # as above
STILL_OPEN = f"SELECT * FROM stage WHERE {_OF} AND ended_at IS NULL ORDER BY started_at"  # noqa: S608  # as above
ANSWER = f"SELECT ended_at, result FROM stage WHERE {_KEY}"  # noqa: S608  # as above

TELL = """
    INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
    SELECT %(workspace_id)s, %(type)s, 'mission', %(mission_id)s, 'worker', correlation_id, CAST(%(told)s AS jsonb)
    FROM mission WHERE workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s RETURNING 1
"""
