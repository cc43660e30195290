"""The statements that reserve and pay what hosts work on a mission, in psycopg's own form.

They lock counters that others know in the order of all who spend: the workspace's last, and their run after it. Whoever
reserves holds the mission's row, as whoever ends it does: it is not paid while something is being reserved that the
payment does not see.
"""

from models.domain.stages import StageName
from models.store.ledger_statements import DAY, MONTH

COMPUTING = [
    stage.value
    for stage in (
        StageName.PULL_CODE,
        StageName.BRANCH_AND_PATCH,
        StageName.RUN_TESTS,
        StageName.SECURITY_SCAN,
        StageName.STRESS_TESTS,
    )
]
"""The stages in which a host works; in the others a mission waits, or Postgres does it all."""

_MISSION = "workspace_id = %(workspace_id)s AND mission_id = %(mission_id)s"
_RUN = "workspace_id = %(workspace_id)s AND run_id = %(mission_id)s"
_HELD = f"FROM ledger WHERE {_RUN} AND cost_id = 'compute' AND kind = 'reserve'"  # no input
_LIMIT = """budget_limit l ON l.workspace_id = %(workspace_id)s
        AND l.scope = 'workspace_month' AND l.owner = 'workspace' AND l.name = ''"""

# The way of nearly all: no run yet, no cap of the mission's own, and room in the month. Nothing is done for any other.
RESERVE = f"""
    WITH m AS (
        SELECT mission_id, {DAY} AS day, {MONTH} AS month FROM mission WHERE {_MISSION} AND status = 'in_progress'
        AND run_id = %(run_id)s FOR NO KEY UPDATE
    ), plain AS (
        SELECT * FROM m WHERE NOT EXISTS (SELECT FROM run WHERE {_RUN}) AND NOT EXISTS (SELECT FROM budget_limit
        WHERE workspace_id = %(workspace_id)s AND scope = 'run' AND owner = 'run' AND name = %(mission_id)s)
    ), promised AS (
        INSERT INTO budget AS b (workspace_id, scope, subject, period, cap_usd, cap_tokens, reserved_usd, reservations)
        SELECT %(workspace_id)s, 'workspace_month', '', month, l.cap_usd, l.cap_tokens, CAST(%(usd)s AS numeric), 1
        FROM plain LEFT JOIN {_LIMIT}
        WHERE COALESCE(l.cap_usd >= %(usd)s AND l.cap_usd > 0, true) AND COALESCE(l.cap_tokens > 0, true)
        ON CONFLICT (workspace_id, scope, subject, period)
        DO UPDATE SET reserved_usd = b.reserved_usd + EXCLUDED.reserved_usd, reservations = b.reservations + 1
        WHERE NOT b.crossed
        AND COALESCE(b.settled_usd + b.reserved_usd + EXCLUDED.reserved_usd <= b.cap_usd, true)
        AND COALESCE(b.settled_usd < b.cap_usd, true) AND COALESCE(b.settled_tokens < b.cap_tokens, true)
        RETURNING period
    ), own AS (
        INSERT INTO budget (workspace_id, scope, subject, period, reserved_usd, reservations)
        SELECT %(workspace_id)s, 'run', %(mission_id)s, '', %(usd)s, 1 FROM promised
    ), made AS (
        INSERT INTO run (workspace_id, run_id, mission_id, created_by)
        SELECT %(workspace_id)s, %(mission_id)s, %(mission_id)s, 'worker' FROM promised
    ), held AS (
        INSERT INTO ledger (workspace_id, run_id, cost_id, kind, mission_id, model, tokens_in, tokens_out, calls, usd,
        holder, day, month, at)
        SELECT %(workspace_id)s, %(mission_id)s, 'compute', 'reserve', %(mission_id)s, 'compute', 0, 0, 0, %(usd)s,
        'worker', day, month, mc_now() FROM plain, promised
    )
    SELECT EXISTS (SELECT FROM promised) OR EXISTS (SELECT {_HELD}) AS is_reserved FROM m
"""  # noqa: S608  # constants of this module, no input

MADE = f"""
    INSERT INTO run (workspace_id, run_id, mission_id, created_by)
    SELECT workspace_id, mission_id, mission_id, 'worker' FROM mission WHERE {_MISSION} AND status = 'in_progress'
    FOR NO KEY UPDATE ON CONFLICT DO NOTHING
"""  # noqa: S608  # as above

# A mission that was closed before it reserved anything has a run all the same. One that has ended is not paid again.
PAY = f"""
    WITH due AS (
        SELECT COALESCE(m.started_at, m.created_at) AS began, COALESCE(h.usd, 0) AS held,
        CASE WHEN h.usd IS NULL THEN 0 ELSE 1 END AS reservations,
        COALESCE(h.day, {DAY}) AS day, COALESCE(h.month, {MONTH}) AS month
        FROM mission m LEFT JOIN (SELECT * {_HELD}) h ON true
        WHERE m.workspace_id = %(workspace_id)s AND m.mission_id = %(mission_id)s
        AND NOT EXISTS (SELECT FROM run WHERE {_RUN} AND ended_at IS NOT NULL)
    ), took AS (
        SELECT round(COALESCE(sum(extract(epoch FROM GREATEST(ended_at - started_at, interval '0'))), 0), 3) AS seconds,
        count(*) AS calls FROM stage WHERE {_MISSION} AND stage = ANY(%(stages)s)
    ), cost AS (
        SELECT seconds * COALESCE(CAST(%(usd_per_second)s AS numeric), 0) AS usd, seconds, calls FROM took
    ), own AS (
        INSERT INTO budget AS b (workspace_id, scope, subject, period, settled_usd, calls)
        SELECT %(workspace_id)s, 'run', %(mission_id)s, '', usd, calls FROM due, cost
        ON CONFLICT (workspace_id, scope, subject, period) DO UPDATE SET calls = b.calls + EXCLUDED.calls,
        settled_usd = b.settled_usd + EXCLUDED.settled_usd, reserved_usd = b.reserved_usd - (SELECT held FROM due),
        reservations = b.reservations - (SELECT reservations FROM due)
        RETURNING subject
    ), all_of_month AS (
        INSERT INTO budget AS b (workspace_id, scope, subject, period, cap_usd, cap_tokens, settled_usd, calls)
        SELECT %(workspace_id)s, 'workspace_month', '', month, l.cap_usd, l.cap_tokens, usd, calls
        FROM own, due, cost LEFT JOIN {_LIMIT}
        ON CONFLICT (workspace_id, scope, subject, period) DO UPDATE SET calls = b.calls + EXCLUDED.calls,
        settled_usd = b.settled_usd + EXCLUDED.settled_usd, reserved_usd = b.reserved_usd - (SELECT held FROM due),
        reservations = b.reservations - (SELECT reservations FROM due)
        RETURNING period
    ), ended AS (
        INSERT INTO run (workspace_id, run_id, mission_id, status, created_by, started_at, ended_at)
        SELECT %(workspace_id)s, %(mission_id)s, %(mission_id)s, %(status)s, 'worker', began, GREATEST(mc_now(), began)
        FROM due, all_of_month
        ON CONFLICT (workspace_id, run_id) DO UPDATE SET status = EXCLUDED.status, ended_at = EXCLUDED.ended_at,
        reason = NULL, blocked_by = NULL, blocked_period = NULL
        RETURNING run_id
    )
    INSERT INTO ledger (workspace_id, run_id, cost_id, kind, mission_id, model, tokens_in, tokens_out, calls, usd,
    unpriced, overrun, holder, reason, day, month, at)
    SELECT %(workspace_id)s, run_id, 'compute', 'settle', run_id, 'compute', 0, 0, calls, usd,
    CAST(%(usd_per_second)s AS numeric) IS NULL, usd > held, 'worker', seconds || ' s of a host', day, month, mc_now()
    FROM ended, due, cost
"""  # noqa: S608  # as above
