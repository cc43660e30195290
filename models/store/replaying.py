"""Judges past acts again by another policy, to show what it would have changed before it is in force."""

from collections import Counter
from collections.abc import Mapping, Sequence

from models.domain.actions import asked_as
from models.domain.policy import Act, Ask, Outcome, Policy, Risk, Verdict, assess
from models.schemas.policy import EXAMPLES, Changed, ChangedAct, Judgement, PolicyTried
from models.tables.policies import VerdictRow


def replay(past: Sequence[VerdictRow], laws: Mapping[int, Policy], policy: Policy) -> PolicyTried:
    """Judge each act again; the examples are the newest whose risk or outcome differs, or who would have been asked.

    `laws` are the versions by which the acts were judged.
    """
    counts: Counter[tuple[str, Risk, str, Outcome, Ask | None, Ask | None]] = Counter()
    examples: list[ChangedAct] = []
    for row in past:
        act = Act.model_validate(row.input)
        law, verdict = laws[row.policy_version], _judged(act, policy)
        before, after = _asked(act, _judged(act, law), law), _asked(act, verdict, policy)
        if (row.risk, row.outcome, before) != (verdict.risk, verdict.outcome, after):
            counts[row.risk, verdict.risk, row.outcome, verdict.outcome, before, after] += 1
            if len(examples) < EXAMPLES:
                examples.append(_example(row, verdict, (before, after)))
    changes = tuple(
        Changed(risk=(Risk(risk), new_risk), outcome=(Outcome(outcome), new_outcome), ask=(before, after), count=count)
        for (risk, new_risk, outcome, new_outcome, before, after), count in counts.most_common()
    )
    return PolicyTried(judged=len(past), changed=counts.total(), changes=changes, examples=tuple(examples))


def _judged(act: Act, policy: Policy) -> Verdict:
    return assess(act.action, act.principal, act.context, policy)


def _asked(act: Act, verdict: Verdict, policy: Policy) -> Ask | None:
    """Say who would be asked, if anybody: whom the rules demand, and who may answer such questions at all."""
    kind = asked_as(act.action)
    if kind is None or not verdict.asks or verdict.ask is None:
        return None
    return policy.resolvers(kind).joined(verdict.ask)


def _example(row: VerdictRow, verdict: Verdict, ask: tuple[Ask | None, Ask | None]) -> ChangedAct:
    return ChangedAct(
        verdict_id=row.verdict_id,
        at=row.at,
        action=row.action,
        mission_id=row.mission_id,
        policy_version=row.policy_version,
        before=Judgement.model_validate(row),
        after=Judgement.model_validate(verdict),
        ask=ask,
    )
