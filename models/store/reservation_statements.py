"""The statements that find, lock and give back what is reserved and not over, in psycopg's own form.

None of them reads what a run has paid, however much that is.
"""

from models.domain.budgets import Scope
from models.store.ledger_statements import COUNTER, OF_THE_RUN, ROW, RUN, keys

HELD = """
    SELECT l.usd, l.tokens_in + l.tokens_out AS tokens FROM ledger l WHERE l.workspace_id = %(workspace_id)s
    AND l.run_id = %(run_id)s AND l.cost_id = %(cost_id)s AND l.kind = 'reserve'
    AND NOT EXISTS (SELECT FROM ledger e WHERE e.workspace_id = l.workspace_id AND e.run_id = l.run_id
    AND e.cost_id = l.cost_id AND e.kind IN ('settle', 'release') OFFSET 0)
"""
"""What was reserved under a key, and is not over."""

# Without statistics the planner would rather read all rows of a run than look up those that are open.
_OPEN = """FROM open_reservation o, LATERAL (
        SELECT * FROM ledger l WHERE l.workspace_id = o.workspace_id AND l.run_id = o.run_id AND l.cost_id = o.cost_id
        AND l.kind = 'reserve' AND NOT EXISTS (SELECT FROM ledger e WHERE e.workspace_id = l.workspace_id
        AND e.run_id = l.run_id AND e.cost_id = l.cost_id AND e.kind IN ('settle', 'release')) OFFSET 0
    ) l WHERE o.workspace_id = %(workspace_id)s AND o.run_id = %(run_id)s"""


def _locked(days: str, months: str) -> str:
    """Lock the counters of a run, in the order of all who spend, and of all windows that are meant."""
    return f"""
    SELECT b.scope FROM run r, budget b WHERE {OF_THE_RUN} AND b.workspace_id = r.workspace_id AND (
        (b.scope = 'run' AND b.subject = r.run_id) OR (b.scope = 'ticket' AND b.subject = r.ticket_id)
        OR (b.scope = 'agent_day' AND b.subject = r.agent_id AND {days})
        OR (b.scope = 'workspace_month' AND {months})
    ) ORDER BY array_position(ARRAY{[scope.value for scope in Scope]}, b.scope), b.period FOR NO KEY UPDATE OF b
"""  # noqa: S608  # constants of this module, no input


LOCK_OPEN = _locked(f"b.period IN (SELECT day {_OPEN})", f"b.period IN (SELECT month {_OPEN})")
"""All counters of what a run still holds. Only who holds the run's own knows which: until then it may reserve."""
LOCK_ALL = _locked("true", "true")
"""All counters that a run can have spent from: of whatever day, for a clock may have gone wrong."""

RELEASE_ALL = f"""
    WITH l AS (
        SELECT l.* {_OPEN}
    ), done AS (
        INSERT INTO ledger ({ROW})
        SELECT workspace_id, run_id, cost_id, 'release', agent_id, ticket_id, mission_id, model, 0, 0, 0, 0, false,
        false, %(holder)s, NULL, NULL, day, month, mc_now() FROM l
    ), closed AS (
        DELETE FROM open_reservation WHERE {RUN}
    ), k AS (
        SELECT k.scope, k.subject, k.period, sum(l.usd) AS usd, sum(l.tokens_in + l.tokens_out) AS tokens,
        count(*) AS number FROM l, LATERAL {keys("l", "l.day", "l.month")} WHERE k.subject IS NOT NULL GROUP BY 1, 2, 3
    )
    UPDATE budget b SET reserved_usd = b.reserved_usd - k.usd, reserved_tokens = b.reserved_tokens - k.tokens,
    reservations = b.reservations - k.number FROM k WHERE {COUNTER}
"""  # noqa: S608  # as above
"""Gives back all that a run still holds, however much it is."""

OVERDUE = """
    SELECT workspace_id, run_id, cost_id FROM open_reservation WHERE held_until < mc_now()
    ORDER BY row_number() OVER (PARTITION BY workspace_id, run_id ORDER BY random()), random() LIMIT %(limit)s
"""
"""What was held for too long, so that its holder must have died: of all workspaces, of each run one before a second.

Which ones is left to chance: those that cannot be released must not stand before the others in every pass.
"""
