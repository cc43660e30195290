"""What a new policy is held to besides its form: its names of facts and of kinds of decisions, which a question about a
policy is held to as well, that each of its rules changes something, and that whom it asks may answer.

A misspelled name would never hold, or never be asked for, without a word. Versions that are kept already are read as
they are.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Literal, get_args

from models.domain.errors import InvalidInput
from models.domain.plain_yaml import line_of
from models.domain.policy import FILE, Fact, Outcome, Policy, Rule, parse_policy
from models.domain.principals import Role

_TYPES: dict[str, type] = {
    "ci_files": tuple,
    "conflict": str,
    "existing_tests": tuple,
    "filed_by": str,
    "gone_tests": tuple,
    "judges": tuple,
    "medium_findings": int,
    "mission_id": str,
    "model": str,
    "overrides": tuple,
    "requires_governance_approval": bool,
    "run_id": str,
    "touches_config": bool,
}
FACTS = frozenset(_TYPES)
DecisionKind = Literal[
    "agent_question", "budget", "governance", "registration", "rollback", "ticket_done", "tool_action", "wiki_change"
]
KINDS = frozenset(get_args(DecisionKind))
_BRACED = re.compile(r"\{(\w+)\}")
_TRUTHS = {"true": True, "false": False}
_NUMBER = re.compile("-?[0-9]{1,18}")
_Where = tuple[int | str, ...]
_Fault = tuple[_Where, str]
"""Where something is wrong, and what."""


def parse_new_policy(source: str) -> Policy:
    """Read a policy that is about to be kept or tried.

    Raises:
        InvalidInput: `policy_invalid`; the message says on which line what is wrong.
    """
    policy = parse_policy(source)
    faults = chain(_idle(policy), _unanswerable(policy), _unknown(policy), _open_braces(policy))
    if fault := next(faults, None):
        where, told = fault
        line = line_of(source.encode(), where)
        raise InvalidInput("policy_invalid", f"{FILE}: line {line}: {told}", line=line)
    return policy


def _idle(policy: Policy) -> Iterator[_Fault]:
    """Find rules that only give a risk which whatever they are about has already."""
    told = "the rule changes nothing, for none lowers a risk: give it a higher `risk`, an `ask` or `deny: true`"
    for number, rule in enumerate(policy.rules):
        if rule.outcome is Outcome.ALLOW and rule.risk and rule.risk.rank <= rule.when.risk.rank:
            yield ("rules", number, "risk"), told


def _unanswerable(policy: Policy) -> Iterator[_Fault]:
    """Find roles that may answer nothing: whoever reads them there would believe that such people are asked."""
    asked: list[tuple[_Where, Role]] = [(("resolve", kind, "role"), who.role) for kind, who in policy.resolve.items()]
    asked += [(("rules", number, "ask", "role"), rule.ask.role) for number, rule in enumerate(policy.rules) if rule.ask]
    for where, role in asked:
        if not role.includes(Role.OPERATOR):
            yield where, f"no {role} answers decisions: `operator` is the least role that does"


def _unknown(policy: Policy) -> Iterator[_Fault]:
    """Find names that mean nothing."""
    for where, name, what, known in _named(policy):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            yield where, f"no {what} is called `{name}` ({hint})"


def _open_braces(policy: Policy) -> Iterator[_Fault]:
    """Find braces around anything but a name: nothing would ever be put in their place."""
    for number, rule in enumerate(policy.rules):
        if set("{}") & set(_BRACED.sub("", rule.because)):
            yield ("rules", number, "because"), "braces hold the name of a fact and nothing else, as in `{judges}`"


def require_known(facts: Collection[str], policy: Policy) -> None:
    """Refuse a fact that neither the product nor a rule of this policy knows: no act ever has it.

    Raises:
        InvalidInput: `unknown_fact`; the message lists those that are known.
    """
    known = FACTS | {fact for rule in policy.rules for _, fact in _facts(rule)}
    if unknown := sorted(set(facts) - known):
        told = f"no fact is called `{unknown[0][:100]}` (known: {', '.join(sorted(known))})"
        raise InvalidInput("unknown_fact", told)


def read_facts(said: Iterable[str]) -> dict[str, Fact]:
    """Read facts as somebody types them, NAME or NAME=VALUE; a list is said once for each of its items.

    Raises:
        InvalidInput: `fact_unreadable`, where words are none of the fact's type, or a fact is said twice.
    """
    facts: dict[str, Fact] = {}
    for each in said:
        name, has_value, words = each.partition("=")
        fact, before = _fact(name, words) if has_value else True, facts.get(name)
        if isinstance(before, tuple) and isinstance(fact, tuple):
            fact = before + fact
        elif before is not None:
            raise InvalidInput("fact_unreadable", f"`{name}` is said twice, and is no list of which each item is said")
        facts[name] = fact
    return facts


def _fact(name: str, words: str) -> Fact:
    """Read words by the fact's type, or by what they look like where nobody knows it."""
    known, truth = _TYPES.get(name), _TRUTHS.get(words.lower())
    if known is tuple:
        return (words,) if words else ()
    if known is str:
        return words
    if truth is not None and known is not int:
        return truth
    if _NUMBER.fullmatch(words) and known is not bool:
        return int(words)
    if known:
        what = "true or false" if known is bool else "a whole number"
        raise InvalidInput("fact_unreadable", f"`{name}` is {what}, and not {words[:100]!r}")
    return words


def _named(policy: Policy) -> Iterator[tuple[_Where, str, str, Collection[str]]]:
    """Go through all names: where each stands, what it is of, and which there are."""
    for number, rule in enumerate(policy.rules):
        for key, fact in _facts(rule):
            yield ("rules", number, *key), fact, "fact", FACTS
    for kind in policy.resolve:
        yield ("resolve", kind), kind, "kind of decision", KINDS | {"*"}


def _facts(rule: Rule) -> Iterator[tuple[tuple[str, ...], str]]:
    yield from ((("when", "fact"), fact) for fact in rule.when.fact)
    yield from ((("because",), fact) for fact in _BRACED.findall(rule.because))
