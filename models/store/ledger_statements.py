"""The statements that reserve, settle and release money, in psycopg's own form.

Each transaction first locks the counters it is about, in one order (the run's first, the workspace's last), and then
does all the rest in one statement: it sees them as they are now, and no two transactions wait for each other in a
circle. Whoever holds a run's counter knows that nobody who spends for the run holds any other.
"""

from enum import StrEnum

from models.domain.budgets import LOOP, Scope
from models.store.asking_statements import filers_of, starters_of
from models.store.questions import TOLD, inserted


class Reply(StrEnum):
    """What the ledger answers to who reserves, settles or releases."""

    GRANTED = "granted"
    DONE = "done"
    KNOWN = "known"
    """It was granted, or done, before."""
    ENDED = "ended"
    MISSION_ENDED = "mission_ended"
    BLOCKED = "blocked"
    UNPREPARED = "unprepared"
    """A counter is missing: a window has begun, or the run has."""
    OVER = "over"
    """It would not fit even if all that is promised came to nothing."""
    FULL = "full"
    """It fits once begun calls cost less."""
    CROWDED = "crowded"
    """Its run has more begun calls than it may have."""
    CROSSES = "crosses"
    """It would go beyond a cap, and the caller is not ready for what follows of that in the same transaction."""


RUN = "workspace_id = %(workspace_id)s AND run_id = %(run_id)s"
DAY = "to_char(mc_now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
MONTH = "to_char(mc_now() AT TIME ZONE 'UTC', 'YYYY-MM')"
_BUDGETS = "(hashtextextended('budget/' || %(workspace_id)s, 0))"
ALONE = f"SELECT pg_advisory_xact_lock{_BUDGETS}"
TOGETHER = f"SELECT pg_advisory_xact_lock_shared{_BUDGETS}"
"""Caps that are being set and counters that are being made must not miss each other."""
COUNTER = "b.workspace_id = %(workspace_id)s AND b.scope = k.scope AND b.subject = k.subject AND b.period = k.period"


def keys(of: str, day: str, month: str) -> str:
    """Name the counters of a run or of a row of the ledger, in the order of their limits."""
    named = {
        Scope.RUN: f"{of}.run_id, ''",
        Scope.TICKET: f"{of}.ticket_id, ''",
        Scope.AGENT_DAY: f"{of}.agent_id, {day}",
        Scope.WORKSPACE_MONTH: f"'', {month}",
    }
    rows = ", ".join(f"({place}, '{scope}', {named[scope]})" for place, scope in enumerate(Scope, 1))
    return f"(VALUES {rows}) AS k (place, scope, subject, period)"


_OF_RUN = f"FROM run r, LATERAL {keys('r', DAY, MONTH)}"
_SUBJECT = "workspace_id = %(workspace_id)s AND subject = %(run_id)s"
OF_THE_RUN = "r.workspace_id = %(workspace_id)s AND r.run_id = %(run_id)s"
# A loop that is found meanwhile takes the run without its counter: what was read before says nothing of it.
_NO_LOOP = f"blocked_by IS DISTINCT FROM '{LOOP}'"
_RESERVED = f"FROM ledger WHERE {RUN} AND cost_id = %(cost_id)s AND kind = 'reserve'"


def _locked(keys: str) -> str:
    """Lock counters one by one in the order of their limits."""
    return f"""
        SELECT b.scope FROM (SELECT k.* {keys} ORDER BY k.place OFFSET 0) k,
        LATERAL (SELECT b.scope FROM budget b WHERE {COUNTER} FOR NO KEY UPDATE) b
    """  # noqa: S608  # constants of this module, no input


RESERVED = f"SELECT model, day, ticket_id {_RESERVED}"
LOCK = _locked(f"{_OF_RUN} WHERE {OF_THE_RUN}")
LOCK_HELD = _locked(f"FROM (SELECT * {_RESERVED}) l, LATERAL {keys('l', 'l.day', 'l.month')}")
LOCK_RUN = f"""
    SELECT 1 FROM budget WHERE {_SUBJECT} AND scope = 'run' AND period = '' FOR NO KEY UPDATE
"""  # noqa: S608  # as above

WANTED = f"""
    SELECT k.scope, k.subject, k.period, r.agent_id, CASE k.scope WHEN 'run' THEN r.level WHEN 'ticket' THEN r.category
    WHEN 'agent_day' THEN COALESCE((SELECT a.level FROM agent a WHERE a.workspace_id = r.workspace_id
    AND a.name = r.agent_id AND a.registration <> 'rejected'), r.level) END AS kind {_OF_RUN}
    WHERE {OF_THE_RUN} AND k.subject IS NOT NULL ORDER BY k.place
"""  # noqa: S608  # as above
"""The counters that a run needs. A run keeps its level; a day is that of the level which its agent has now."""

SPENT_UP = f"""
    SELECT b.* {_OF_RUN}, budget b WHERE {OF_THE_RUN} AND {COUNTER}
    AND (b.crossed OR b.settled_usd >= b.cap_usd OR b.settled_tokens >= b.cap_tokens) ORDER BY k.place LIMIT 1
"""  # as above
"""The limit that leaves a new run nothing at all."""

LEFT = f"""
    SELECT min(CASE WHEN b.crossed THEN 0 ELSE b.cap_usd - b.settled_usd - b.reserved_usd END) AS usd
    {_OF_RUN}, budget b WHERE {OF_THE_RUN} AND {COUNTER}
"""  # as above
"""What the tightest of a run's limits leaves, a closed one nothing; no number where none has a cap."""

# A young table has no statistics, and the planner would rather read all counters of a workspace than look four up.
_FOUND = f"LATERAL (SELECT * FROM budget b WHERE {COUNTER} OFFSET 0) b"  # noqa: S608  # as above


def _question(limit: str) -> str:
    """Name what is asked about a limit: one question each time that it is crossed."""
    return f"'budget.' || {limit}.scope || '.' || {limit}.subject || '.' || {limit}.crossings"


def _is_told(limit: str) -> str:
    """Say whether somebody was told that a limit is closed, or asked about it: by an alert of its window, if any."""
    named = f"{limit}.scope || '/' || COALESCE(NULLIF({limit}.subject, ''), {limit}.workspace_id)"
    return f"""(EXISTS (
            SELECT FROM alert a WHERE a.workspace_id = {limit}.workspace_id AND a.kind = 'cost_spike'
            AND a.subject_kind = 'budget' AND a.subject_id = {named} AND a.status <> 'resolved'
            AND a.details ->> 'period' = {limit}.period
        ) OR EXISTS (
            SELECT FROM decision d WHERE d.workspace_id = {limit}.workspace_id AND d.status = 'pending'
            AND d.decision_id = {_question(limit)}
        ))"""  # noqa: S608  # as above


NEXT_CLOSED = f"""LATERAL (
        SELECT b.scope, b.subject, b.period, b.cap_usd, b.cap_tokens, b.denied FROM {keys("r", DAY, MONTH)}, LATERAL (
            SELECT * FROM budget b WHERE b.workspace_id = r.workspace_id AND b.scope = k.scope
            AND b.subject = k.subject AND b.period = k.period AND b.crossed AND {_is_told("b")} OFFSET 0
        ) b ORDER BY k.place LIMIT 1
    )"""  # noqa: S608  # as above
"""The first of a run's limits that is closed now. What a lower cap closed holds a run only once one has met it."""

ROW = """workspace_id, run_id, cost_id, kind, agent_id, ticket_id, mission_id, model, tokens_in, tokens_out, calls,
        usd, unpriced, overrun, holder, held_until, reason, day, month, at"""
_SPENT = "%(tokens_in)s, %(tokens_out)s, %(calls)s, %(usd)s"

# What was made already is told with no `most`: neither the number of calls nor the end of its mission keeps it from
# being paid.
RESERVE = f"""
    WITH r AS (
        SELECT *, {DAY} AS day, {MONTH} AS month FROM run WHERE {RUN}
    ), k AS (
        SELECT k.* FROM r, LATERAL {keys("r", "r.day", "r.month")} WHERE k.subject IS NOT NULL
    ), looked AS (
        SELECT k.place, b.*, b.scope IS NULL AS is_missing,
        b.crossed OR COALESCE(b.settled_usd + %(usd)s > b.cap_usd, false)
        OR COALESCE(b.settled_tokens + %(tokens)s > b.cap_tokens, false) AS is_over,
        COALESCE(b.settled_usd + b.reserved_usd + %(usd)s > b.cap_usd, false)
        OR COALESCE(b.settled_tokens + b.reserved_tokens + %(tokens)s > b.cap_tokens, false) AS is_full
        FROM k LEFT JOIN {_FOUND} ON true
    ), hit AS (
        SELECT * FROM looked WHERE is_over OR is_full ORDER BY is_over DESC, place LIMIT 1
    ), said AS (
        SELECT CASE
            WHEN EXISTS (SELECT {_RESERVED}) THEN '{Reply.KNOWN}'
            WHEN r.ended_at IS NOT NULL THEN '{Reply.ENDED}'
            WHEN CAST(%(most)s AS integer) IS NOT NULL AND EXISTS (
                SELECT FROM mission m WHERE m.workspace_id = r.workspace_id AND m.mission_id = r.mission_id
                AND m.mission_id <> r.run_id AND m.ended_at IS NOT NULL
            ) THEN '{Reply.MISSION_ENDED}'
            WHEN r.status IS NOT NULL AND (r.blocked_by = '{LOOP}' OR EXISTS (
                SELECT FROM looked WHERE scope = r.blocked_by AND period = r.blocked_period AND crossed
                AND (denied IS NOT NULL OR {_is_told("looked")})
            )) THEN '{Reply.BLOCKED}'
            WHEN EXISTS (SELECT FROM looked WHERE is_missing) THEN '{Reply.UNPREPARED}'
            WHEN (SELECT is_over FROM hit) THEN '{Reply.OVER}'
            WHEN EXISTS (SELECT FROM hit) THEN '{Reply.FULL}'
            WHEN EXISTS (SELECT FROM looked WHERE scope = 'run' AND reservations >= CAST(%(most)s AS integer))
            THEN '{Reply.CROWDED}'
            ELSE '{Reply.GRANTED}' END AS reply FROM r
    ), held AS (
        INSERT INTO ledger ({ROW})
        SELECT %(workspace_id)s, run_id, %(cost_id)s, 'reserve', agent_id, ticket_id, mission_id, %(model)s, {_SPENT},
        %(unpriced)s, false, %(holder)s, mc_now() + CAST(%(lasts)s AS interval), NULL, day, month, mc_now()
        FROM r, said WHERE reply = '{Reply.GRANTED}' RETURNING workspace_id, run_id, cost_id, held_until
    ), opened AS (
        INSERT INTO open_reservation (workspace_id, run_id, cost_id, held_until)
        SELECT workspace_id, run_id, cost_id, held_until FROM held WHERE held_until IS NOT NULL
    ), promised AS (
        UPDATE budget b SET reserved_usd = b.reserved_usd + %(usd)s, reserved_tokens = b.reserved_tokens + %(tokens)s,
        reservations = b.reservations + 1 FROM k, held WHERE {COUNTER}
    ), goes_on AS (
        UPDATE run SET status = NULL, reason = NULL, blocked_by = NULL, blocked_period = NULL
        WHERE {RUN} AND status IS NOT NULL AND {_NO_LOOP} AND EXISTS (SELECT FROM held) RETURNING 1
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, 'run.unblocked', 'run', %(run_id)s, %(holder)s, %(correlation_id)s, '{{}}' FROM goes_on
    )
    SELECT said.reply, r.reason AS run_reason, r.blocked_by, EXISTS (SELECT FROM goes_on) AS goes_on, hit.*
    FROM said, r LEFT JOIN hit ON true
"""  # noqa: S608  # as above

# Settles or releases what was reserved, once; what was released may still be settled, for it was spent all the same.
# Who is `ready` contains the run in the same transaction, or asks anew where the cap was crossed before. There is a row
# for each limit that it goes beyond, in their order. It meets (`is_met`) those that were open, and those of which it
# took more than it had reserved: whoever closed these, the run is blocked, too. A run that has ended needs no cap of
# its own any more.
FINISH = f"""
    WITH known AS (
        SELECT kind FROM ledger WHERE {RUN} AND cost_id = %(cost_id)s AND kind IN ('settle', 'release')
    ), l AS (
        SELECT r.*, CASE WHEN is_late THEN 0 ELSE usd END AS held_usd,
        CASE WHEN is_late THEN 0 ELSE tokens_in + tokens_out END AS held_tokens
        FROM (SELECT *, EXISTS (SELECT FROM known) AS is_late {_RESERVED}) r
    ), k AS (
        SELECT k.* FROM l, LATERAL {keys("l", "l.day", "l.month")} WHERE k.subject IS NOT NULL
    ), looked AS (
        SELECT k.place, b.* FROM k, {_FOUND}
    ), crossing AS (
        SELECT looked.*, NOT crossed OR (settled_usd + %(usd)s > cap_usd AND %(usd)s > held_usd)
        OR (settled_tokens + %(tokens)s > cap_tokens AND %(tokens)s > held_tokens) AS is_met FROM looked, l
        WHERE (settled_usd + %(usd)s > cap_usd OR settled_tokens + %(tokens)s > cap_tokens)
        AND (scope <> 'run' OR EXISTS (SELECT FROM run WHERE {RUN} AND ended_at IS NULL))
    ), said AS (
        SELECT CASE
            WHEN EXISTS (SELECT FROM known WHERE kind = 'settle' OR kind = %(kind)s) THEN '{Reply.KNOWN}'
            WHEN EXISTS (SELECT FROM crossing) AND NOT %(ready)s THEN '{Reply.CROSSES}'
            ELSE '{Reply.DONE}' END AS reply FROM l
    ), done AS (
        INSERT INTO ledger ({ROW})
        SELECT %(workspace_id)s, run_id, cost_id, %(kind)s, agent_id, ticket_id, mission_id,
        COALESCE(%(model)s, model), {_SPENT}, %(unpriced)s,
        is_late OR %(usd)s > held_usd OR %(tokens)s > held_tokens, %(holder)s, NULL, %(reason)s, day, month, mc_now()
        FROM l, said WHERE reply = '{Reply.DONE}' RETURNING 1
    ), closed AS (
        DELETE FROM open_reservation WHERE {RUN} AND cost_id = %(cost_id)s
        AND EXISTS (SELECT FROM said WHERE reply <> '{Reply.CROSSES}')
    ), counted AS (
        UPDATE budget b SET settled_usd = b.settled_usd + %(usd)s, settled_tokens = b.settled_tokens + %(tokens)s,
        reserved_usd = b.reserved_usd - held_usd, reserved_tokens = b.reserved_tokens - held_tokens,
        reservations = b.reservations - CASE WHEN is_late THEN 0 ELSE 1 END,
        calls = b.calls + %(calls)s, finished_at = mc_now()
        FROM k, l, said, done WHERE {COUNTER}
    )
    SELECT said.reply, crossing.* FROM said LEFT JOIN crossing ON true ORDER BY place
"""  # noqa: S608  # as above

# Corrects what a run paid, by more or less. More is charged to the windows of today, and no limit keeps it from being
# so; less is given back to the last day that paid so much, or it would open the windows of today.
ADJUST = f"""
    WITH r AS (
        SELECT run.*, w.day, w.month FROM run, LATERAL (
            SELECT {DAY} AS day, {MONTH} AS month WHERE %(usd)s >= 0
            UNION ALL (
                SELECT day, month FROM ledger WHERE {RUN} AND kind IN ('settle', 'adjust') AND %(usd)s < 0
                GROUP BY day, month HAVING sum(usd) + %(usd)s >= 0 ORDER BY day DESC LIMIT 1
            )
        ) w WHERE {RUN}
    ), k AS (
        SELECT k.* FROM r, LATERAL {keys("r", "r.day", "r.month")} WHERE k.subject IS NOT NULL
    ), done AS (
        INSERT INTO ledger ({ROW})
        SELECT %(workspace_id)s, run_id, %(cost_id)s, 'adjust', agent_id, ticket_id, mission_id, %(model)s, {_SPENT},
        false, %(usd)s > 0, %(holder)s, NULL, %(reason)s, day, month, mc_now()
        FROM r ON CONFLICT DO NOTHING RETURNING 1
    ), counted AS (
        UPDATE budget b SET settled_usd = b.settled_usd + %(usd)s FROM k, done WHERE {COUNTER}
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, 'budget.adjusted', 'run', %(run_id)s, %(actor)s, %(correlation_id)s,
        jsonb_build_object('usd', CAST(%(usd)s AS text), 'reason', CAST(%(reason)s AS text)) FROM done
    )
    SELECT 1 FROM done
"""  # noqa: S608  # as above

CROSSED = f"""
    SELECT b.* FROM ledger l, LATERAL {keys("l", "l.day", "l.month")}, budget b
    WHERE l.workspace_id = %(workspace_id)s AND l.run_id = %(run_id)s AND l.cost_id = %(cost_id)s AND l.kind = 'adjust'
    AND {COUNTER} AND b.crossed AND b.period IN ('', {DAY}, {MONTH})
"""  # noqa: S608  # as above
"""The closed limits that a correction was about, and whose window is not over."""

ADJUSTED = f"SELECT usd FROM ledger WHERE {RUN} AND cost_id = %(cost_id)s AND kind = 'adjust'"  # noqa: S608  # as above
PAID = f"SELECT settled_usd AS usd FROM budget WHERE {_SUBJECT} AND scope = 'run' AND period = ''"  # noqa: S608  # as above

SETTLED = f"""
    SELECT usd, tokens_in + tokens_out AS tokens FROM ledger WHERE {RUN} AND cost_id = %(cost_id)s AND kind = 'settle'
"""  # noqa: S608  # as above

THE_RUN = f"SELECT * FROM run WHERE {RUN}"  # noqa: S608  # as above
THOSE_HELD = f"""
    SELECT asked.name, held.agent_id, held.created_by
    FROM unnest(CAST(%(names)s AS text[]), CAST(%(scopes)s AS text[]), CAST(%(run_ids)s AS text[]),
    CAST(%(sinces)s AS timestamptz[])) AS asked (name, scope, run_id, since), LATERAL (
        SELECT r.agent_id, r.created_by FROM run r WHERE r.workspace_id = %(workspace_id)s AND r.run_id = asked.run_id
        UNION SELECT o.agent_id, o.created_by FROM run r JOIN run o ON o.workspace_id = r.workspace_id
        AND o.ticket_id = r.ticket_id AND (o.ended_at IS NULL OR o.started_at >= asked.since)
        WHERE asked.scope = 'ticket' AND r.workspace_id = %(workspace_id)s AND r.run_id = asked.run_id
        UNION SELECT m.assigned_to, NULL FROM mission m
        WHERE m.workspace_id = %(workspace_id)s AND m.mission_id = asked.run_id
        UNION SELECT NULL, filed.created_by FROM ({filers_of("asked.run_id")}) filed
        UNION SELECT NULL, started.created_by FROM ({starters_of("asked.run_id")}) started
        LIMIT 1000
    ) held
"""  # noqa: S608  # as above
"""Whose runs the limits hold that runs have met, or held since a question was put: a run's own limit, or its ticket's.
A mission's own run is of who filed it, also before it was tried again, who has it and whoever had it started."""
THE_COUNTER = f"""
    SELECT *, {_question("budget")} AS question FROM budget WHERE workspace_id = %(workspace_id)s
    AND scope = %(scope)s AND subject = %(subject)s AND period = %(period)s FOR NO KEY UPDATE
"""  # noqa: S608  # as above
# Which ones is left to chance here, too, and in `ASKED_OF_OPEN`.
ASKED_OF_ENDED = """
    SELECT r.workspace_id, r.run_id FROM (
        SELECT workspace_id, substr(about, 5) AS run_id FROM decision
        WHERE kind = 'budget' AND status = 'pending' AND starts_with(about, 'run/')
        UNION
        SELECT workspace_id, substr(subject_id, 5) FROM alert
        WHERE kind = 'cost_spike' AND subject_kind = 'budget' AND starts_with(subject_id, 'run/')
        AND status <> 'resolved'
        UNION
        SELECT workspace_id, about FROM decision WHERE kind = 'tool_action' AND status = 'pending' AND about IS NOT NULL
    ) asked JOIN run r ON r.workspace_id = asked.workspace_id AND r.run_id = asked.run_id AND r.ended_at IS NOT NULL
    ORDER BY random() LIMIT %(limit)s
"""
"""Runs that have ended of which something is still asked or told."""
ASKED_OF_OPEN = f"""
    SELECT b.workspace_id, b.scope, b.subject FROM (
        SELECT workspace_id, binding ->> 'scope' AS scope, binding ->> 'subject' AS subject, decision_id FROM decision
        WHERE kind = 'budget' AND status = 'pending' AND about IS NOT NULL
        UNION
        SELECT workspace_id, details ->> 'scope', details ->> 'subject', NULL FROM alert
        WHERE kind = 'cost_spike' AND subject_kind = 'budget' AND status <> 'resolved' AND details ->> 'period' = ''
    ) asked JOIN budget b ON b.workspace_id = asked.workspace_id AND b.scope = asked.scope
    AND b.subject = asked.subject AND b.period = '' AND (NOT b.crossed OR asked.decision_id <> {_question("b")})
    GROUP BY 1, 2, 3 ORDER BY random() LIMIT %(limit)s
"""  # noqa: S608  # as above
"""Limits that are open, of which something is still asked or told: they were many that were raised at once, or somebody
held a question meanwhile and did not answer. Those that were closed again meanwhile, too."""
DENY = f"""
    UPDATE budget SET denied = %(denied)s WHERE workspace_id = %(workspace_id)s AND scope = %(scope)s
    AND subject = %(subject)s AND period = %(period)s AND crossed
    AND {_question("budget")} = %(decision_id)s RETURNING *
"""  # noqa: S608  # as above

PASSED = f"""
    SELECT b.*, d.decision_id, d.requested_by, d.question->>'run_id' AS run_id FROM run r
    JOIN budget b ON b.workspace_id = r.workspace_id AND b.period = '' AND b.crossed AND (
        (b.scope = 'run' AND b.subject = r.run_id AND r.ended_at IS NULL)
        OR (b.scope = 'ticket' AND b.subject = r.ticket_id))
    JOIN decision d ON d.workspace_id = b.workspace_id
    AND d.decision_id = {_question("b")} AND d.status = 'pending'
    WHERE {OF_THE_RUN} AND (
        b.settled_usd + b.reserved_usd >= CAST(d.binding->>'cap_usd' AS numeric)
        OR b.settled_tokens + b.reserved_tokens >= CAST(d.binding->>'cap_tokens' AS bigint)
    ) ORDER BY b.scope FOR UPDATE OF d SKIP LOCKED
"""  # noqa: S608  # as above
"""The crossed limits of a run whose pending question proposes no more than is promised by now."""

_SAID = "CAST(CASE WHEN EXISTS (SELECT FROM closed) THEN %(reason)s ELSE %(held)s END AS text)"
# A cap is crossed once, whoever meets it; what follows of it is told once, and each run that meets it is blocked. What
# was closed by a lower cap is told, and asked about, when it is met first. A window that is over holds no run.
CONTAIN = f"""
    WITH closed AS (
        UPDATE budget SET crossed = true, crossings = crossings + 1, denied = NULL
        WHERE workspace_id = %(workspace_id)s AND scope = %(scope)s AND subject = %(subject)s AND period = %(period)s
        AND (NOT crossed OR %(again)s
        OR ((crossings = 0 OR period IN ('', {DAY}, {MONTH})) AND NOT {_is_told("budget")})) RETURNING *
    ), stopped AS (
        UPDATE run SET status = 'blocked', reason = {_SAID}, blocked_by = %(scope)s, blocked_period = %(period)s
        WHERE {RUN} AND ended_at IS NULL AND (status IS NULL OR (%(instead)s AND {_NO_LOOP}
        AND (blocked_by, blocked_period, reason) IS DISTINCT FROM (%(scope)s, %(period)s, {_SAID})))
        AND %(period)s IN ('', {DAY}, {MONTH}) RETURNING mission_id
    ), asked AS (
        {inserted(_question("closed"), "FROM closed WHERE %(is_asked)s")}
    ), told AS (
        INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
        SELECT %(workspace_id)s, type, kind, id, %(actor)s, %(correlation_id)s, data FROM (
            SELECT 1 AS number, 'budget.exceeded' AS type, 'budget' AS kind, %(named)s AS id,
            CAST(%(told)s AS jsonb) AS data FROM closed WHERE NOT %(again)s
            UNION ALL SELECT 2, 'run.blocked', 'run', %(run_id)s,
            jsonb_build_object('reason', {_SAID}, 'by', CAST(%(scope)s AS text), 'mission_id', mission_id) FROM stopped
            UNION ALL SELECT 3, %(type)s, 'decision', decision_id, {TOLD} FROM asked
        ) t ORDER BY number
    )
    SELECT 1 FROM closed
"""  # noqa: S608  # as above
