"""A new policy uses no name of a fact or a kind of decision that there is not."""

import pytest

from models.domain.errors import InvalidInput
from models.domain.policy import parse_policy
from models.domain.policy_names import parse_new_policy
from tests.fixtures.policies import FIRST, SOURCE

RULE = "rules:\n  - rule: r\n    because: b\n    deny: true\n"


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        (f"{RULE}    when:\n      fact: ci_filez\n", 6, "no fact is called `ci_filez` (did you mean `ci_files`?)"),
        (f"{RULE}    when: {{fact: [judges, x]}}\n", 5, "no fact is called `x` (known: ci_files, conflict, "),
        (RULE.replace("because: b", "because: 'since {nofact}'"), 3, "no fact is called `nofact`"),
        (RULE.replace("because: b", "because: 'since {0}'"), 3, "no fact is called `0`"),
        ("resolve:\n  governance: {role: admin}\n  bugdet: {role: admin}\n", 3, "(did you mean `budget`?)"),
        ("resolve:\n  'gov*': {role: admin}\n", 2, "no kind of decision is called `gov*`"),
    ],
)
def test_a_misspelled_name_is_refused_with_its_line(source: str, line: int, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_new_policy(source)
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
    assert f"policy.yaml: line {line}: " in refused.value.message
    assert said in refused.value.message
    assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("risk: GREEN", 4),
        ("risk: GREEN, when: {action: x}", 4),
        ("risk: YELLOW, when: {risk: YELLOW}", 4),
        ("risk: YELLOW, when: {risk: RED}", 4),
    ],
)
def test_a_rule_that_changes_nothing_is_refused_with_its_line(rule: str, line: int) -> None:
    source = f"rules:\n  - {{rule: q, because: b, deny: true}}\n  - {{rule: r, because: b,\n     {rule}}}\n"
    with pytest.raises(InvalidInput, match="the rule changes nothing") as refused:
        parse_new_policy(source)
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
    assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    "rule",
    ["risk: YELLOW", "risk: RED, when: {risk: YELLOW}", "risk: GREEN, ask: {}", "risk: GREEN, deny: true", "ask: {}"],
)
def test_a_rule_that_may_change_something_is_taken(rule: str) -> None:
    assert parse_new_policy(f"rules:\n  - {{rule: r, because: b, {rule}}}\n").rules


@pytest.mark.parametrize("role", ["observer", "member"])
def test_nobody_is_asked_who_may_not_answer(role: str) -> None:
    for source, line in (
        (f"{RULE}    ask:\n      people: 2\n      role: {role}\n", 7),
        (f"resolve:\n  governance: {{role: admin}}\n  '*':\n    role: {role}\n", 4),
    ):
        with pytest.raises(InvalidInput, match=f"no {role} answers decisions: `operator` is the least") as refused:
            parse_new_policy(source)
        assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
        assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    "said", ["{gone_tests.__class__}", "{gone_tests!r:>1000000}", "{", "}", "{}", "{{judges}}", "{ judges }"]
)
def test_braces_hold_names_of_facts_only(said: str) -> None:
    source = RULE.replace("because: b", f"because: 'as {said} {{judges}}'")
    with pytest.raises(InvalidInput, match="braces hold the name of a fact and nothing else") as refused:
        parse_new_policy(source)
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", 3)
    assert parse_policy(source), "a version that is kept already is still read"


def test_the_first_policy_names_what_there_is() -> None:
    assert parse_new_policy(SOURCE) == FIRST
