"""What a new policy is held to besides its form: that each value is of its type, that it says all of its parts, its
names of facts and of kinds of decisions, which a question about a policy is held to as well, that each of its rules can
hold and changes something, and that whom it asks may answer.

A part that was cut off would loosen the law, `people: yes` would ask one person, and a misspelled name would never
hold, without a word. Versions that are kept already are read as they are.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from itertools import chain

from models.domain.errors import InvalidInput
from models.domain.names import is_seen
from models.domain.plain_yaml import line_of, require_typed
from models.domain.policy import FILE, Fact, Outcome, Policy, Rule, When, parse_policy
from models.domain.principals import Kind, Role
from models.domain.states import DecisionKind

_TYPES: dict[str, type] = {
    "chosen_branch": str,
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
MAX_SECRET_LETTERS = 2_000
KINDS = frozenset(DecisionKind)
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
    require_typed(source.encode(), FILE, "policy_invalid", Policy)
    finders = (_unsaid, _too_long, _empty, _blank, _impossible, _idle, _unanswerable, _unknown, _open_braces)
    faults = chain.from_iterable(find(policy) for find in finders)
    if fault := next(faults, None):
        where, told = fault
        line = line_of(source.encode(), where)
        raise InvalidInput("policy_invalid", f"{FILE}: line {line}: {told}", line=line)
    return policy


def _unsaid(policy: Policy) -> Iterator[_Fault]:
    """Find what only a file that was cut off leaves unsaid: none of it may be taken for a wish to hold nothing."""
    if gone := [f"`{part}`" for part in Policy.model_fields if part not in policy.model_fields_set]:
        told = f"the policy does not say {' and '.join(gone)}, and may be cut off: begin with what `policy show` prints"
        yield (), f"{told}; what is to name nothing is said as `rules: []`"
    elif "*" not in policy.resolve:
        yield ("resolve",), 'it does not say who answers all other kinds: add `"*": {role: operator}`'


def _too_long(policy: Policy) -> Iterator[_Fault]:
    """Find what would take too long to be held against the many paths that one act may touch."""
    letters = sum(map(len, policy.secret_paths))
    if letters > MAX_SECRET_LETTERS:
        told = f"the patterns under `secret_paths` have {letters} letters together; {MAX_SECRET_LETTERS} are allowed"
        yield ("secret_paths",), told


def _empty(policy: Policy) -> Iterator[_Fault]:
    """Find conditions that name nothing: they would hold always, or never, and look like the opposite."""
    for where, value in _conditions(policy):
        if value is None or value == ():
            yield where, f"`{where[-1]}` names nothing: say what it is about, or leave it out"


def _blank(policy: Policy) -> Iterator[_Fault]:
    """Find names that nothing has."""
    classes: Iterable[tuple[_Where, object]] = ((("actions", risk), names) for risk, names in policy.actions.items())
    for where, names in chain(_conditions(policy), classes, [(("secret_paths",), policy.secret_paths)]):
        for place, name in enumerate(names if isinstance(names, tuple) else ()):
            if not any(map(is_seen, name)):
                yield (*where, place), f"a blank name stands under `{where[-1]}`, and nothing is called so"


def _conditions(policy: Policy) -> Iterator[tuple[_Where, object]]:
    """Go through what the rules say of when they hold."""
    for number, rule in enumerate(policy.rules):
        for key in sorted(rule.when.model_fields_set):
            yield ("rules", number, "when", key), getattr(rule.when, key)


def _impossible(policy: Policy) -> Iterator[_Fault]:
    """Find conditions that hold of nobody, or of nothing."""
    for number, rule in enumerate(policy.rules):
        for key, told in _unmet(rule.when):
            yield ("rules", number, "when", key), f"the rule never holds: {told}"
        if rule.when.secret and not policy.secret_paths:
            yield ("rules", number, "when", "secret"), "the rule never holds: `secret_paths` names none"


def _unmet(when: When) -> Iterator[tuple[str, str]]:
    kinds = when.kind or tuple(Kind)
    if when.role and when.level:
        yield "role", "people have a `role`, and agents a `level`; make a rule for each"
    if when.role and Kind.HUMAN not in kinds:
        yield "role", "only people have a `role`; say `kind: human`"
    if when.level and Kind.AGENT not in kinds:
        yield "level", "only agents have a `level`; say `kind: agent`"


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
