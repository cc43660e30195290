"""The statements that pick, give out and show an agent's next mission, in psycopg's own form."""

from models.domain.agents import STALE_SECONDS
from models.domain.budgets import OWNERS, Scope
from models.store.ledger_statements import DAY, MONTH
from models.store.packages import COLUMNS

_FRESH = f"COALESCE(a.last_heartbeat_at > mc_now() - interval '{STALE_SECONDS} seconds', false)"
_NAMED = "a.workspace_id = %(workspace_id)s AND a.name = %(name)s AND a.registration <> 'rejected'"


def nearest(owner: str, *scopes: Scope) -> str:
    """Order caps of limits by whose they are, as the rule does that finds one (`OWNERS`)."""
    known = ", ".join(f"'{name}'" for scope in scopes for name in OWNERS[scope])
    return f"array_position(ARRAY[{known}], {owner})"


# A counter holds the cap that applies; there is none before a window's first run, and then a cap of nothing counts.
_SPENT = f"""
    SELECT k.*, COALESCE(b.cap_usd, l.cap_usd) AS cap_usd, COALESCE(b.cap_tokens, l.cap_tokens) AS cap_tokens
    FROM (VALUES ('agent_day', a.name, {DAY}), ('workspace_month', '', {MONTH})) AS k (scope, subject, period)
    LEFT JOIN budget b ON b.workspace_id = a.workspace_id AND b.scope = k.scope AND b.subject = k.subject
    AND b.period = k.period
    LEFT JOIN LATERAL (
        SELECT CASE WHEN usd_of_level THEN (
            SELECT v.cap_usd FROM budget_limit v WHERE v.workspace_id = a.workspace_id AND v.scope = k.scope
            AND v.owner = 'level' AND v.name = a.level
        ) ELSE cap_usd END AS cap_usd, cap_tokens
        FROM budget_limit l WHERE l.workspace_id = a.workspace_id AND l.scope = k.scope
        AND (l.owner, l.name) IN (('agent', a.name), ('level', a.level), ('workspace', ''))
        ORDER BY {nearest("l.owner", Scope.AGENT_DAY, Scope.WORKSPACE_MONTH)} LIMIT 1
    ) l ON b.scope IS NULL
    WHERE b.crossed OR COALESCE(b.settled_usd, 0) >= COALESCE(b.cap_usd, l.cap_usd)
    OR COALESCE(b.settled_tokens, 0) >= COALESCE(b.cap_tokens, l.cap_tokens)
    LIMIT 1
"""  # noqa: S608  # constants of this module, no input

_FIT = f"""
    SELECT CAST(a.trust AS double precision) AS trust, ARRAY(
        SELECT role FROM unnest(CAST(%(roles)s AS text[]), CAST(%(words)s AS text[])) AS w (role, word)
        WHERE a.capabilities ? word
    ) AS roles FROM agent a
    WHERE {_NAMED} AND a.registration = 'approved' AND a.status = 'active' AND {_FRESH} AND NOT EXISTS ({_SPENT})
"""  # noqa: S608  # as above

_IN_ORDER = "ORDER BY m.severity_rank, m.created_at, m.seq LIMIT 1"


def _waiting(roles: str) -> str:
    """Say of a mission `m` that somebody of this name and these roles may begin it now, if trusted enough."""
    return f"""
    m.workspace_id = %(workspace_id)s AND m.status = 'open' AND m.claimed_at IS NULL AND m.run_id IS NULL
    AND (m.assigned_to IS NULL OR m.assigned_to = %(name)s OR m.assigned_to = ANY({roles}))
    AND (m.trust_requirements -> 'allowed_roles' = '[]' OR m.trust_requirements -> 'allowed_roles' ?| {roles})
    AND (m.dependencies = '[]' OR NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(m.dependencies) AS d (id)
        LEFT JOIN mission needed ON needed.workspace_id = m.workspace_id AND needed.mission_id = d.id
        WHERE needed.status IS DISTINCT FROM 'resolved'))
    """  # noqa: S608  # as above


# Each question about the agent is a subquery of its own: it is answered once, and missions are read in their order.
_NEXT = f"""
    SELECT m.mission_id FROM mission m WHERE EXISTS (SELECT FROM me) AND m.required_trust <= (SELECT trust FROM me)
    AND {_waiting("CAST((SELECT roles FROM me) AS text[])")} {_IN_ORDER}
"""  # noqa: S608  # as above

PEEK = f"""
    WITH me AS MATERIALIZED ({_FIT}), chosen AS MATERIALIZED ({_NEXT})
    SELECT {COLUMNS} FROM mission m WHERE m.workspace_id = %(workspace_id)s
    AND m.mission_id = (SELECT mission_id FROM chosen)
"""  # noqa: S608  # as above

_CLAIM = f"""
    WITH me AS MATERIALIZED ({_FIT}), chosen AS MATERIALIZED ({_NEXT} FOR UPDATE OF m SKIP LOCKED), claimed AS (
        UPDATE mission SET assigned_to = %(name)s, claimed_at = mc_now()
        WHERE workspace_id = %(workspace_id)s AND mission_id = (SELECT mission_id FROM chosen) RETURNING *
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT workspace_id, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
        jsonb_build_object('assigned_to', assigned_to) FROM claimed
    )
    SELECT {COLUMNS} FROM claimed m
"""  # noqa: S608  # as above
CLAIM = " ".join(_CLAIM.split())  # psycopg remembers how to send a statement of up to 4096 characters

WHY = f"""
    SELECT a.*, {_FRESH} AS is_fresh, spent.*, (
        SELECT m.trust_requirements FROM mission m WHERE {_waiting("CAST(%(roles)s AS text[])")} {_IN_ORDER}
    ) AS needs FROM agent a LEFT JOIN LATERAL ({_SPENT}) spent ON true WHERE {_NAMED}
"""  # noqa: S608  # as above
"""What may keep an agent from work: its own state, its budget, and what is asked of whoever takes the next mission."""

SPENT = f"SELECT spent.* FROM agent a, LATERAL ({_SPENT}) spent WHERE {_NAMED}"  # noqa: S608  # as above
"""The limit that leaves an agent nothing to spend now."""
