"""Judges past acts again by another policy, to show what it would have changed before it is in force."""

from collections import Counter
from collections.abc import Sequence

from models.domain.policy import Act, Outcome, Policy, Risk, Verdict, assess
from models.schemas.policy import EXAMPLES, Changed, ChangedAct, Judgement, PolicyTried
from models.tables.policies import VerdictRow


def replay(past: Sequence[VerdictRow], policy: Policy) -> PolicyTried:
    """Judge each act again; the examples are the newest whose risk or outcome differs."""
    counts: Counter[tuple[str, str, Risk, Outcome]] = Counter()
    examples: list[ChangedAct] = []
    for row in past:
        act = Act.model_validate(row.input)
        verdict = assess(act.action, act.principal, act.context, policy)
        if (row.risk, row.outcome) != (verdict.risk, verdict.outcome):
            counts[row.risk, row.outcome, verdict.risk, verdict.outcome] += 1
            if len(examples) < EXAMPLES:
                examples.append(_example(row, verdict))
    changes = tuple(
        Changed(risk=(Risk(risk), new_risk), outcome=(Outcome(outcome), new_outcome), count=count)
        for (risk, outcome, new_risk, new_outcome), count in counts.most_common()
    )
    return PolicyTried(judged=len(past), changed=counts.total(), changes=changes, examples=tuple(examples))


def _example(row: VerdictRow, verdict: Verdict) -> ChangedAct:
    return ChangedAct(
        verdict_id=row.verdict_id,
        at=row.at,
        action=row.action,
        mission_id=row.mission_id,
        policy_version=row.policy_version,
        before=Judgement.model_validate(row),
        after=Judgement.model_validate(verdict),
    )
