"""What a new policy is held to besides its form: its names of facts and of kinds of decisions, which a question about a
policy is held to as well, and that each of its rules changes something.

A misspelled name would never hold, or never be asked for, without a word. Versions that are kept already are read as
they are.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Literal, get_args

from models.domain.errors import InvalidInput
from models.domain.plain_yaml import line_of
from models.domain.policy import FILE, Outcome, Policy, Rule, parse_policy

FACTS = frozenset(
    {
        "ci_files",
        "conflict",
        "existing_tests",
        "filed_by",
        "gone_tests",
        "judges",
        "medium_findings",
        "mission_id",
        "model",
        "overrides",
        "requires_governance_approval",
        "run_id",
        "touches_config",
    }
)
DecisionKind = Literal[
    "agent_question", "budget", "governance", "registration", "rollback", "ticket_done", "tool_action", "wiki_change"
]
KINDS = frozenset(get_args(DecisionKind))
_BRACED = re.compile(r"\{(\w+)\}")


def parse_new_policy(source: str) -> Policy:
    """Read a policy that is about to be kept or tried.

    Raises:
        InvalidInput: `policy_invalid`; the message says on which line what is wrong.
    """
    policy = parse_policy(source)
    _require_effects(source, policy)
    for where, name, what, known in _named(policy):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            line = line_of(source.encode(), where)
            told = f"{FILE}: line {line}: no {what} is called `{name}` ({hint})"
            raise InvalidInput("policy_invalid", told, line=line)
    return policy


def _require_effects(source: str, policy: Policy) -> None:
    """Refuse a rule that only gives a risk which whatever it is about has already."""
    for number, rule in enumerate(policy.rules):
        if rule.outcome is Outcome.ALLOW and rule.risk and rule.risk.rank <= rule.when.risk.rank:
            line = line_of(source.encode(), ("rules", number, "risk"))
            told = "the rule changes nothing, for none lowers a risk: give it a higher `risk`, an `ask` or `deny: true`"
            raise InvalidInput("policy_invalid", f"{FILE}: line {line}: {told}", line=line)


def require_known(facts: Collection[str], policy: Policy) -> None:
    """Refuse a fact that neither the product nor a rule of this policy knows: no act ever has it.

    Raises:
        InvalidInput: `unknown_fact`; the message lists those that are known.
    """
    known = FACTS | {fact for rule in policy.rules for _, fact in _facts(rule)}
    if unknown := sorted(set(facts) - known):
        told = f"no fact is called `{unknown[0][:100]}` (known: {', '.join(sorted(known))})"
        raise InvalidInput("unknown_fact", told)


def _named(policy: Policy) -> Iterator[tuple[tuple[int | str, ...], str, str, Collection[str]]]:
    """Go through all names: where each stands, what it is of, and which there are."""
    for number, rule in enumerate(policy.rules):
        for key, fact in _facts(rule):
            yield ("rules", number, *key), fact, "fact", FACTS
    for kind in policy.resolve:
        yield ("resolve", kind), kind, "kind of decision", KINDS | {"*"}


def _facts(rule: Rule) -> Iterator[tuple[tuple[str, ...], str]]:
    yield from ((("when", "fact"), fact) for fact in rule.when.fact)
    yield from ((("because",), fact) for fact in _BRACED.findall(rule.because))
