"""A new policy says all its parts, can hold what it says, and uses no name that there is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import InvalidInput
from models.domain.policy import Ask, Context, FourEyes, Level, When, Who, parse_policy
from models.domain.policy_names import parse_new_policy
from models.domain.principals import Kind, Role
from tests.fixtures.policies import FIRST, PARTS, SOURCE, whole

RULE = "rules:\n  - rule: r\n    because: b\n    deny: true\n"


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        (f"{RULE}    when:\n      fact: ci_filez\n", 6, "no fact is called `ci_filez` (did you mean `ci_files`?)"),
        (f"{RULE}    when: {{fact: [judges, x]}}\n", 5, "no fact is called `x` (known: chosen_branch, ci_files, "),
        (RULE.replace("because: b", "because: 'since {nofact}'"), 3, "no fact is called `nofact`"),
        (RULE.replace("because: b", "because: 'since {0}'"), 3, "no fact is called `0`"),
        ("resolve:\n  governance: {role: admin}\n  bugdet: {role: admin}\n  '*': {}\n", 3, "(did you mean `budget`?)"),
        ("resolve:\n  'gov*': {role: admin}\n  '*': {}\n", 2, "no kind of decision is called `gov*`"),
    ],
)
def test_a_misspelled_name_is_refused_with_its_line(source: str, line: int, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_new_policy(whole(source))
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
    assert f"policy.yaml: line {line}: " in refused.value.message
    assert said in refused.value.message
    assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    ("said", "wants"),
    [
        *(
            (f"ask: {{people: {value}}}", "a valid integer")
            for value in ("yes", "true", "on", "2.0", '"2"', "!!float 2")
        ),
        *((f"deny: {value}", "a valid boolean") for value in ("1", '"true"', "1.0")),
        ("when: {protected: 1}, deny: true", "a valid boolean"),
        ("when: {secret: 'no'}, deny: true", "a valid boolean"),
        ("when: {over_budget: 'yes'}, deny: true", "a valid boolean"),
        ("when: {action: !!set {a, b}}, deny: true", "a valid array"),
        ("when: {env: [!!binary cHJvZA==]}, deny: true", "a valid string"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_line(said: str, wants: str) -> None:
    source = f"rules:\n  - {{rule: q, because: b, deny: true}}\n  - {{rule: r, because: b,\n     {said}}}\n"
    with pytest.raises(InvalidInput, match=f"Input should be {wants}") as refused:
        parse_new_policy(whole(source))
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", 4)
    assert parse_policy(source), "a version that is kept already is still read"


def test_values_of_their_types_are_taken() -> None:
    when = "kind: [agent, human], env: [prod], usd_above: '2', over_budget: false, secret: true, risk: YELLOW"
    rule = f"rules:\n  - {{rule: r, because: b, when: {{{when}}}, ask: {{people: 2, four_eyes: required}}}}\n"
    assert parse_new_policy(whole(f"secret_paths: [x]\n{rule}")).rules[0].ask == Ask(
        people=2, four_eyes=FourEyes.REQUIRED
    )


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
        parse_new_policy(whole(source))
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
    assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    "rule",
    ["risk: YELLOW", "risk: RED, when: {risk: YELLOW}", "risk: GREEN, ask: {}", "risk: GREEN, deny: true", "ask: {}"],
)
def test_a_rule_that_may_change_something_is_taken(rule: str) -> None:
    assert parse_new_policy(whole(f"rules:\n  - {{rule: r, because: b, {rule}}}\n")).rules


@pytest.mark.parametrize("role", ["observer", "member"])
def test_nobody_is_asked_who_may_not_answer(role: str) -> None:
    for source, line in (
        (f"{RULE}    ask:\n      people: 2\n      role: {role}\n", 7),
        (f"resolve:\n  governance: {{role: admin}}\n  '*':\n    role: {role}\n", 4),
    ):
        with pytest.raises(InvalidInput, match=f"no {role} answers decisions: `operator` is the least") as refused:
            parse_new_policy(whole(source))
        assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
        assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize(
    "said", ["{gone_tests.__class__}", "{gone_tests!r:>1000000}", "{", "}", "{}", "{{judges}}", "{ judges }"]
)
def test_braces_hold_names_of_facts_only(said: str) -> None:
    source = RULE.replace("because: b", f"because: 'as {said} {{judges}}'")
    with pytest.raises(InvalidInput, match="braces hold the name of a fact and nothing else") as refused:
        parse_new_policy(whole(source))
    assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", 3)
    assert parse_policy(source), "a version that is kept already is still read"


def test_the_first_policy_names_what_there_is() -> None:
    assert parse_new_policy(SOURCE) == FIRST


class TestParts:
    """What a policy leaves unsaid was perhaps cut off: it is no wish to hold nothing."""

    @pytest.mark.parametrize("source", ["", " ", "\n", "null", "~", "---", "--- {}", "# x", "{}", "\ufeff"])
    def test_one_without_content_is_refused(self, source: str) -> None:
        with pytest.raises(InvalidInput, match="does not say `actions` and `secret_paths` and `rules`") as refused:
            parse_new_policy(source)
        assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", 1)
        assert "begin with what `policy show` prints" in refused.value.message

    @pytest.mark.parametrize("gone", PARTS)
    def test_each_is_said(self, gone: str) -> None:
        source = "".join(f"{part}: {least}\n" for part, least in PARTS.items() if part != gone)
        with pytest.raises(InvalidInput, match=f"does not say `{gone}`, and may be cut off"):
            parse_new_policy(source)
        assert parse_policy(source), "a version that is kept already is still read"

    def test_what_names_nothing_is_a_wish(self) -> None:
        policy = parse_new_policy(whole(""))
        assert (policy.actions, policy.secret_paths, policy.rules) == ({}, (), ())

    def test_who_answers_all_other_kinds_is_said(self) -> None:
        with pytest.raises(InvalidInput, match="who answers all other kinds") as refused:
            parse_new_policy(whole("rules: []\nresolve:\n  budget: {role: admin}\n"))
        assert refused.value.details["line"] == 2

    def test_a_file_that_was_cut_off_after_any_line_is_refused(self) -> None:
        lines = SOURCE.splitlines(keepends=True)
        for upto in range(len(lines)):
            with pytest.raises(InvalidInput):
                parse_new_policy("".join(lines[:upto]))

    @given(st.integers(1, len(SOURCE.rstrip()) - 1))
    def test_or_anywhere_else(self, upto: int) -> None:
        with pytest.raises(InvalidInput):
            parse_new_policy(SOURCE[:upto])


class TestConditions:
    """A condition that looks narrow and holds always, or looks wide and never holds, is refused."""

    @pytest.mark.parametrize("key", ["action", "kind", "role", "level", "env", "fact"])
    def test_an_empty_list_is_refused(self, key: str) -> None:
        self.refused(f"{key}: []", f"`{key}` names nothing", 6)

    @pytest.mark.parametrize("key", ["protected", "secret", "over_budget", "usd_above"])
    def test_so_is_no_value(self, key: str) -> None:
        self.refused(f"{key}:", f"`{key}` names nothing", 6)

    @pytest.mark.parametrize("key", ["action", "env", "fact"])
    @pytest.mark.parametrize("name", ['" "', '"\\u3000"', '"\\u200b"', "[x, ' ']"])
    def test_a_blank_name_is_refused(self, key: str, name: str) -> None:
        self.refused(f"{key}: {name}", f"a blank name stands under `{key}`", 6)

    def test_so_is_one_of_an_environment_that_is_empty(self) -> None:
        self.refused('env:\n        - dev\n        - ""', "a blank name stands under `env`", 8)

    @pytest.mark.parametrize(
        ("source", "line"),
        [("actions:\n  RED:\n    - email\n    - ' '\n", 4), ("secret_paths:\n  - '*.pem'\n  - ' '\n", 3)],
    )
    def test_so_is_one_of_a_class_or_a_path(self, source: str, line: int) -> None:
        with pytest.raises(InvalidInput, match="a blank name stands under") as refused:
            parse_new_policy(whole(source))
        assert refused.value.details["line"] == line

    @pytest.mark.parametrize(
        ("when", "said"),
        [
            ("{kind: service, level: intern}", "only agents have a `level`; say `kind: agent`"),
            ("{kind: [human, service], level: [lead]}", "only agents have a `level`"),
            ("{kind: agent, role: admin}", "only people have a `role`; say `kind: human`"),
            ("{kind: [agent, service], role: [admin]}", "only people have a `role`"),
            ("{role: admin, level: intern}", "people have a `role`, and agents a `level`"),
            ("{secret: true}", "`secret_paths` names none"),
        ],
    )
    def test_what_holds_of_nobody_is_refused(self, when: str, said: str) -> None:
        source = whole(f"{RULE}    when: {when}\n")
        with pytest.raises(InvalidInput, match="the rule never holds: ") as refused:
            parse_new_policy(source)
        assert (said in refused.value.message, refused.value.details["line"]) == (True, 5)
        assert parse_policy(source), "a version that is kept already is still read"

    @given(
        st.builds(
            When,
            kind=st.lists(st.sampled_from(Kind), min_size=1, unique=True).map(tuple),
            role=st.just(()) | st.lists(st.sampled_from(Role), min_size=1, unique=True).map(tuple),
            level=st.just(()) | st.lists(st.sampled_from(Level), min_size=1, unique=True).map(tuple),
        )
    )
    def test_what_is_taken_holds_of_somebody(self, when: When) -> None:
        """Of a person with a role, an agent with a level, or a service."""
        people = [Who(name="p", kind=Kind.HUMAN, role=role) for role in Role]
        agents = [Who(name="a", kind=Kind.AGENT, level=level) for level in Level]
        known = (*people, *agents, Who(name="s", kind=Kind.SERVICE))
        holds = any(when.holds("x", who, Context(), False) for who in known)
        said = {key: value for key, value in when.model_dump(mode="json", exclude_defaults=True).items() if value}
        source = whole(f"{RULE}    when: {json.dumps(said)}\n")
        if holds:
            assert parse_new_policy(source).rules[0].when == when
        else:
            with pytest.raises(InvalidInput, match="the rule never holds"):
                parse_new_policy(source)

    @staticmethod
    def refused(when: str, said: str, line: int) -> None:
        source = whole(f"{RULE}    when:\n      {when}\n")
        with pytest.raises(InvalidInput, match=said) as refused:
            parse_new_policy(source)
        assert (refused.value.code, refused.value.details["line"]) == ("policy_invalid", line)
        assert parse_policy(source), "a version that is kept already is still read"


@pytest.mark.parametrize("letters", [2_000, 2_001])
def test_patterns_of_secrets_are_short_together(letters: int) -> None:
    lines = ["x" * 200] * 9 + ["x" * (letters - 1_800 - 100), "y" * 100]
    source = whole("secret_paths:\n" + "".join(f"  - {json.dumps(line)}\n" for line in lines))
    if letters <= 2_000:
        assert parse_new_policy(source)
        return
    with pytest.raises(InvalidInput, match="2001 letters together; 2000 are allowed"):
        parse_new_policy(source)
    assert parse_policy(source), "a version that is kept already is still read"
