"""The statements that move a mission's row, each with the events that tell of it, in psycopg's own form."""

_KEY = "workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s"

LOAD = f"SELECT * FROM mission WHERE {_KEY}"  # noqa: S608  # constants of this module, no input
LOCK = f"{LOAD} FOR UPDATE"
HOLD = f"SELECT 1 FROM mission WHERE {_KEY} FOR NO KEY UPDATE"  # noqa: S608  # as above
"""Takes the row before anything is written: who has written already may stand before in the stream (ADR 3)."""


def _moving(changes: str) -> str:
    """Move a mission along an arrow of its state machine: no row where it is not in a state that may go there."""
    return f"""
        WITH moved AS (
            UPDATE mission SET status = %(status)s, {changes}
            WHERE {_KEY} AND status = ANY(%(sources)s) RETURNING correlation_id
        ), told AS (
            INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
            SELECT %(workspace_id)s, type, 'mission', %(mission_id)s, %(actor)s, correlation_id, CAST(data AS jsonb)
            FROM moved, unnest(CAST(%(types)s AS text[]), CAST(%(told)s AS text[]))
            WITH ORDINALITY AS t (type, data, number) ORDER BY number
        )
        SELECT correlation_id FROM moved
    """  # noqa: S608  # as above


START = _moving("run_id = %(run_id)s, started_at = mc_now()")
MERGED = _moving("merge_sha = %(merge_sha)s, merged_at = mc_now()")
CLOSED = _moving("outcome = %(outcome)s, reason = %(reason)s, ended_at = mc_now(), paused = false, blocked = NULL")
