"""The statements that pick, give out and show an agent's next mission, in psycopg's own form."""

from models.domain.agents import STALE_SECONDS
from models.domain.budgets import OWNERS, Scope
from models.store.ledger_statements import DAY, MONTH
from models.store.packages import COLUMNS

_FRESH = f"a.last_heartbeat_at > mc_now() - interval '{STALE_SECONDS} seconds'"
_NAMED = "a.workspace_id = %(workspace_id)s AND a.name = %(name)s AND a.registration <> 'rejected'"


def nearest(owner: str, *scopes: Scope) -> str:
    """Order caps of limits by whose they are, as the rule does that finds one (`OWNERS`)."""
    known = ", ".join(f"'{name}'" for scope in scopes for name in OWNERS[scope])
    return f"array_position(ARRAY[{known}], {owner})"


# A counter holds the cap that applies; there is none before a window's first run, and then a cap of nothing counts.
_LIMITS = f"""
    FROM (VALUES ('agent_day', a.name, {DAY}), ('workspace_month', '', {MONTH})) k (scope, subject, period)
    LEFT JOIN budget b
    ON (b.workspace_id, b.scope, b.subject, b.period) = (a.workspace_id, k.scope, k.subject, k.period)
    LEFT JOIN LATERAL (
        SELECT CASE WHEN usd_of_level THEN (
            SELECT v.cap_usd FROM budget_limit v
            WHERE (v.workspace_id, v.scope, v.owner, v.name) = (a.workspace_id, k.scope, 'level', a.level)
        ) ELSE cap_usd END AS cap_usd, cap_tokens
        FROM budget_limit l WHERE l.workspace_id = a.workspace_id AND l.scope = k.scope
        AND (l.owner, l.name) IN (('agent', a.name), ('level', a.level), ('workspace', ''))
        ORDER BY {nearest("l.owner", Scope.AGENT_DAY, Scope.WORKSPACE_MONTH)} LIMIT 1
    ) l ON b.scope IS NULL
    WHERE b.crossed OR COALESCE(b.settled_usd, 0) >= COALESCE(b.cap_usd, l.cap_usd)
    OR COALESCE(b.settled_tokens, 0) >= COALESCE(b.cap_tokens, l.cap_tokens)
"""  # noqa: S608  # constants of this module, no input
_SPENT = f"""
    SELECT k.*, COALESCE(b.cap_usd, l.cap_usd) AS cap_usd, COALESCE(b.cap_tokens, l.cap_tokens) AS cap_tokens
    {_LIMITS} LIMIT 1
"""

_FULL = """EXISTS (
    SELECT FROM mission h WHERE (h.workspace_id, h.assigned_to, h.status) = (a.workspace_id, a.name, 'open')
    AND h.run_id IS NULL AND h.claimed_at IS NOT NULL OFFSET %(most)s - 1
)"""

_FIT = f"""
    SELECT CAST(a.trust AS float8) AS trust, ARRAY(
        SELECT role FROM unnest(CAST(%(roles)s AS text[]), CAST(%(words)s AS text[])) w (role, word)
        WHERE a.capabilities ? word
    ) AS roles FROM agent a
    WHERE (a.workspace_id, a.name, a.registration, a.status) = (%(workspace_id)s, %(name)s, 'approved', 'active')
    AND {_FRESH} AND NOT EXISTS (SELECT {_LIMITS}) AND NOT {_FULL}
"""  # noqa: S608  # as above

_IN_ORDER = "ORDER BY m.severity_rank, m.created_at, m.seq LIMIT 1"


def _waiting(roles: str) -> str:
    """Say of a mission `m` that somebody of this name and these roles may begin it now, if trusted enough."""
    return f"""
    m.workspace_id = %(workspace_id)s AND m.status = 'open' AND m.claimed_at IS NULL AND m.run_id IS NULL
    AND (m.assigned_to IS NULL OR m.assigned_to = %(name)s OR m.assigned_to = ANY({roles}))
    AND (m.trust_requirements -> 'allowed_roles' = '[]' OR m.trust_requirements -> 'allowed_roles' ?| {roles})
    AND (m.dependencies = '[]' OR NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(m.dependencies) d (id)
        LEFT JOIN mission n ON (n.workspace_id, n.mission_id) = (m.workspace_id, d.id)
        WHERE n.status IS DISTINCT FROM 'resolved'))
    """  # noqa: S608  # as above


# Each question about the agent is a subquery of its own: it is answered once, and missions are read in their order.
_NEXT = f"""
    SELECT m.mission_id FROM mission m WHERE EXISTS (TABLE me) AND m.required_trust <= (SELECT trust FROM me)
    AND {_waiting("CAST((SELECT roles FROM me) AS text[])")} {_IN_ORDER}
"""  # noqa: S608  # as above

PEEK = f"""
    WITH me AS MATERIALIZED ({_FIT}), chosen AS MATERIALIZED ({_NEXT})
    SELECT {COLUMNS} FROM mission m WHERE m.workspace_id = %(workspace_id)s
    AND m.mission_id = (TABLE chosen)
"""  # noqa: S608  # as above

_CLAIM = f"""
    WITH me AS ({_FIT}), chosen AS ({_NEXT} FOR UPDATE OF m SKIP LOCKED), claimed AS (
        UPDATE mission SET assigned_to = %(name)s, claimed_at = mc_now()
        WHERE workspace_id = %(workspace_id)s AND mission_id = (TABLE chosen) RETURNING *
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT workspace_id, 'mission.assigned', 'mission', mission_id, %(actor)s, %(correlation_id)s,
        jsonb_build_object('assigned_to', assigned_to) FROM claimed
    )
    SELECT {COLUMNS} FROM claimed m
"""  # noqa: S608  # as above
CLAIM = " ".join(_CLAIM.split())  # psycopg remembers how to send a statement of up to 4096 characters

WHY = f"""
    SELECT a.*, COALESCE({_FRESH}, false) AS is_fresh, {_FULL} AS is_full, spent.*, (
        SELECT m.trust_requirements FROM mission m WHERE {_waiting("CAST(%(roles)s AS text[])")} {_IN_ORDER}
    ) AS needs FROM agent a LEFT JOIN LATERAL ({_SPENT}) spent ON true WHERE {_NAMED}
"""  # noqa: S608  # as above
"""What may keep an agent from work: its own state, its budget, and what is asked of whoever takes the next mission."""

SPENT = f"SELECT spent.* FROM agent a, LATERAL ({_SPENT}) spent WHERE {_NAMED}"  # noqa: S608  # as above
"""The limit that leaves an agent nothing to spend now."""
