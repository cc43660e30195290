"""`assess` with 200 rules against 50: what a verdict costs, and that it grows no faster than the number of rules."""

import time

from benchmarks.measure import Comparison, Goal, Numbers, alternate
from models.domain.policy import Context, Policy, Who, assess, parse_policy
from models.domain.principals import Kind

GOAL = Goal("microseconds_per_rule", "lower", 1.1)
FEW, MANY = 50, 200
ACTIONS = ("mission.merge", "tool.t7.run", "tool.t199.run", "unknown")
WHO = Who(name="robot", kind=Kind.AGENT)
PLACES = (Context(), Context(env="prod", protected=True, paths=tuple(f"src/f{n}.py" for n in range(20))))


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    repeats, rounds = (100, 3) if quick else (1_000, 7)

    async def many() -> Numbers:
        return _measure(_policy(MANY), MANY, repeats)

    async def few() -> Numbers:
        return _measure(_policy(FEW), FEW, repeats)

    return [await alternate(f"assess, {MANY} rules over {FEW}", GOAL, many, few, rounds)]


def _policy(rules: int) -> Policy:
    """Rules of every sort: about one tool, about whoever acts anywhere, about places; a tenth of them apply."""
    sorts = ("action: 'tool.t{n}.*'", "env: staging, kind: human", "protected: true, secret: true", "fact: f{n}")
    lines = [
        f"  - {{rule: r{n}, because: 'reason {n}', when: {{{sorts[n % 4].format(n=n)}}}, risk: RED}}"
        if n % 10
        else f"  - {{rule: r{n}, because: 'reason {n}', when: {{action: '*'}}, ask: {{people: 2}}}}"
        for n in range(rules)
    ]
    return parse_policy("\n".join(["secret_paths: ['*.pem', '*.env', '*id_rsa*']", "rules:", *lines]))


def _measure(policy: Policy, rules: int, repeats: int) -> Numbers:
    began = time.process_time()  # nothing here waits, and CPU seconds mind less what else the machine does
    for _ in range(repeats):
        for action in ACTIONS:
            for place in PLACES:
                assess(action, WHO, place, policy)
    each = (time.process_time() - began) / (repeats * len(ACTIONS) * len(PLACES)) * 1e6
    return {"microseconds": each, "microseconds_per_rule": each / rules}
