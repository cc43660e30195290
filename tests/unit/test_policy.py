"""The policy's rules: what is risky, who is asked, and that one rule more never lets more pass."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import InvalidInput
from models.domain.policy import (
    Ask,
    Context,
    FourEyes,
    Level,
    Outcome,
    Policy,
    Risk,
    Rule,
    Verdict,
    When,
    Who,
    assess,
    parse_policy,
)
from models.domain.principals import Kind, Role
from tests.fixtures.policies import FIRST, WORKER, merge_verdict

INTERN, LEAD = (Who(name="a", kind=Kind.AGENT, level=level) for level in (Level.INTERN, Level.LEAD))
ANNA = Who(name="anna", kind=Kind.HUMAN, role=Role.OPERATOR)


def judged(action: str, who: Who = WORKER, policy: Policy = FIRST, **context: Any) -> Verdict:
    return assess(action, who, Context.model_validate(context), policy)


class TestTheFirstPolicy:
    @pytest.mark.parametrize(
        ("action", "risk", "outcome"),
        [
            ("read_db", Risk.GREEN, Outcome.ALLOW),
            ("post_comment", Risk.GREEN, Outcome.ALLOW),
            ("shell", Risk.YELLOW, Outcome.ALLOW),
            ("git_commit", Risk.YELLOW, Outcome.ALLOW),
            ("network_call", Risk.YELLOW, Outcome.ALLOW),
            ("email", Risk.RED, Outcome.ASK),
            *((spelt, Risk.RED, Outcome.ASK) for spelt in ("Email", " email", "EMAIL\t", "\uff45mail")),
            ("send_email", Risk.YELLOW, Outcome.ALLOW),
            ("social_post", Risk.RED, Outcome.ASK),
            ("prod_deploy", Risk.RED, Outcome.ASK),
            ("secret_access", Risk.RED, Outcome.ASK),
            ("something.else", Risk.YELLOW, Outcome.ALLOW),
        ],
    )
    def test_classes(self, action: str, risk: Risk, outcome: Outcome) -> None:
        verdict = judged(action, LEAD)
        assert (verdict.risk, verdict.outcome) == (risk, outcome)

    def test_what_is_red_or_unknown_says_so(self) -> None:
        assert judged("email").reasons == ("email is RED",)
        assert judged("x").reasons == ("x is in no class of the policy, and so YELLOW",)

    @pytest.mark.parametrize(
        ("who", "action", "outcome"),
        [(INTERN, "shell", "ask"), (LEAD, "shell", "allow"), (INTERN, "read_db", "allow"), (LEAD, "email", "ask")],
    )
    def test_interns_ask(self, who: Who, action: str, outcome: str) -> None:
        assert judged(action, who).outcome == outcome

    def test_production_takes_two_people_who_did_not_ask_for_it(self) -> None:
        there, elsewhere = judged("shell", env="prod"), judged("shell", env="dev")
        assert (there.risk, there.ask) == (Risk.RED, Ask(people=2, four_eyes=FourEyes.REQUIRED))
        assert elsewhere.outcome is Outcome.ALLOW
        assert judged("read_db", env="prod").outcome is Outcome.ALLOW

    @pytest.mark.parametrize("env", ["production", "Prod", " PROD "])
    def test_production_has_several_names(self, env: str) -> None:
        assert judged("shell", env=env) == judged("shell", env="prod")
        policy = parse_policy(f"rules: [{{rule: r, because: b, when: {{env: '{env}'}}, deny: true}}]")
        assert judged("shell", policy=policy, env="prod").outcome is Outcome.DENY

    def test_rules_and_classes_know_an_action_however_it_is_spelt(self) -> None:
        policy = parse_policy("rules: [{rule: r, because: b, when: {action: Deploy_*}, deny: true}]")
        assert judged("deploy_APP", policy=policy).outcome is Outcome.DENY

    @pytest.mark.parametrize(
        "path",
        [
            ".env",
            "/a/.ENV",
            "TLS/Server.KEY",
            "deploy/.env.local",
            "a/b/id_ed25519",
            "tls/server.key",
            "x/secrets/y",
        ],
    )
    def test_secrets(self, path: str) -> None:
        verdict = judged("read_db", paths=("README.md", path))
        assert (verdict.risk, verdict.rules) == (Risk.RED, ("secrets",))

    def test_paths_without_secrets(self) -> None:
        assert judged("read_db", paths=("environment.py", "keys.py", "docs/secret.md")).risk is Risk.GREEN

    def test_over_budget(self) -> None:
        verdict = judged("shell", usd="0.26", usd_left="0.25")
        assert (verdict.outcome, verdict.ask) == (Outcome.ASK, Ask(role=Role.ADMIN))
        assert judged("shell", usd="0.25", usd_left="0.25").outcome is Outcome.ALLOW

    @pytest.mark.parametrize(
        ("condition", "met", "missed"),
        [
            ("kind: human", {"who": ANNA}, [{"who": WORKER}, {"who": LEAD}]),
            ("role: operator", {"who": ANNA}, [{"who": WORKER}, {"who": LEAD}]),
            ("level: [lead]", {"who": LEAD}, [{"who": INTERN}, {"who": ANNA}]),
            ("env: [prod, staging]", {"env": "staging"}, [{"env": "dev"}, {}]),
            ("protected: true", {"protected": True}, [{"protected": False}, {}]),
            ("protected: false", {"protected": False}, [{"protected": True}]),
            ("secret: true", {"paths": (".env",)}, [{"paths": ("a.py",)}, {}]),
            ("over_budget: true", {"usd": "2", "usd_left": "1"}, [{"usd": "1", "usd_left": "1"}, {"usd": "9"}, {}]),
            ("usd_above: 0.10", {"usd": "0.11"}, [{"usd": "0.10"}, {"usd": "0.09"}, {}]),
            ("usd_above: 0", {"usd": "0.000000001"}, [{"usd": "0"}, {}]),
            ("fact: [a, b]", {"facts": {"a": 1, "b": True}}, [{"facts": {"a": 1}}, {"facts": {"a": 1, "b": 0}}, {}]),
        ],
    )
    def test_a_condition_is_met_or_not(self, condition: str, met: dict[str, Any], missed: list[dict[str, Any]]) -> None:
        secrets = "secret_paths: ['*.env']"
        policy = parse_policy(f"{secrets}\nrules: [{{rule: r, because: b, when: {{{condition}}}, deny: true}}]")
        assert judged("x", policy=policy, **met).rules == ("r",)
        assert [judged("x", policy=policy, **each).rules for each in missed] == [()] * len(missed)

    def test_a_harmless_merge_needs_nobody(self) -> None:
        verdict = merge_verdict()
        assert (verdict.outcome, verdict.reasons) == (Outcome.ALLOW, ())

    @pytest.mark.parametrize(
        ("change", "risk", "reason"),
        [
            ({"protected": True}, Risk.RED, "the branch is protected"),
            ({"env": "prod"}, Risk.RED, "the environment is production"),
            ({"touches_config": True}, Risk.RED, "the patch changes the repository's mission-control file"),
            ({"ci_files": ("ci.yml",)}, Risk.RED, "the patch changes CI files: ci.yml"),
            ({"ci_files": True}, Risk.RED, "the patch changes CI files: some"),
            ({"requires_governance_approval": True}, Risk.YELLOW, "the mission requires governance approval"),
            ({"existing_tests": ("a.py", "b.py")}, Risk.YELLOW, "the patch changes existing tests: a.py, b.py"),
            ({"judges": ("run.sh",)}, Risk.YELLOW, "the patch changes what it is judged by: run.sh"),
            ({"gone_tests": ("a.py::t",)}, Risk.YELLOW, "tests that passed at the base are gone: a.py::t"),
            ({"medium_findings": 2}, Risk.YELLOW, "the scan found 2 new medium finding(s)"),
            ({"overrides": ("setup", "test")}, Risk.YELLOW, "an operator overrides: setup, test"),
        ],
    )
    def test_each_doubt_about_a_merge_asks_and_says_why(self, change: dict[str, Any], risk: Risk, reason: str) -> None:
        places = {name: value for name, value in change.items() if name in Context.model_fields}
        verdict = merge_verdict(**places, facts={name: change[name] for name in change if name not in places})
        assert (verdict.outcome, verdict.risk, verdict.reasons) == (Outcome.ASK, risk, (reason,))


class TestFile:
    @pytest.mark.parametrize(
        ("source", "line", "said"),
        [
            ("rules: [\n", 2, "expected"),
            ("actions:\n  GREEN: [a]\n  PURPLE: [b]\n", 3, "'GREEN', 'YELLOW' or 'RED'"),
            ("rules:\n  - rule: a\n    because: b\n    when: {envs: prod}\n    deny: true\n", 4, "did you mean `env`?"),
            ("rules:\n  - rule: a\n    becuase: b\n    deny: true\n", 2, "because"),
            ("rules:\n  - {rule: a, because: b}\n", 2, "the rule changes nothing"),
            (
                "rules:\n  - {rule: a, because: b, deny: true}\n  - {rule: a, because: c, deny: true}\n",
                3,
                "two rules 'a'",
            ),
            ("rules:\n  - rule: a\n    because: b\n    ask: {people: 0}\n", 4, "greater than or equal to 1"),
            ("rules:\n  - rule: a\n    because: b\n    ask: {role: king}\n", 4, "'operator'"),
            ("actions: &a {}\nresolve: *a\n", 2, "aliases"),
            ("rules:\n  - {rule: a, because: b, when: {usd_above: .nan}, deny: true}\n", 2, "finite"),
            ('resolve:\n  governance:\n    agents: ["bot-*"]\n', 3, "'bot-*' is a pattern"),
            ("rules:\n  - {rule: a, because: b, when: {level: boss}, deny: true}\n", 2, "'intern'"),
            ('rules:\n  - {rule: a, because: "b\\0", deny: true}\n', 2, "U+0000 may not stand here"),
            ('secret_paths:\n  - x\n  - "\\0"\n', 3, "U+0000 may not stand here"),
            (f"actions: {{}}\nsecret_paths: {['*.pem'] * 101}\n", 2, "at most 100 items"),
            ("? [a]\n: b\n", 1, "a key must be plain text"),
            ("rules: !!int ''\n", 1, "cannot be read"),
        ],
    )
    def test_says_on_which_line_it_is_wrong(self, source: str, line: int, said: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_policy(source)
        assert refused.value.code == "policy_invalid"
        assert f"line {line}: " in refused.value.message
        assert said in refused.value.message

    def test_each_fault_has_its_line(self) -> None:
        wrong = "rules:\n  - rule: a\n    because: b\n    ask: {people: 0}\n  - rule: c\n    risky: RED\n"
        with pytest.raises(InvalidInput) as refused:
            parse_policy(wrong)
        told = refused.value.message.removeprefix("policy.yaml: ").split("; ")
        assert [fault.split("`")[:2] for fault in told] == [
            ["line 4: ", "rules.0.ask.people"],
            ["line 5: ", "rules.1.because"],
            ["line 6: ", "rules.1.risky"],
        ]

    def test_unknown_keys_are_refused_at_every_depth(self) -> None:
        for source in (
            "roles: {}\n",
            "resolve: {x: {rule: admin}}\n",
            "rules:\n  - {rule: a, because: b, risky: RED}\n",
        ):
            with pytest.raises(InvalidInput, match="is not a known key"):
                parse_policy(source)

    def test_a_sentence_reaches_nothing_but_facts(self) -> None:
        source = 'rules:\n  - {rule: a, because: "{n} {x.__class__} {gone}", deny: true}\n'
        assert judged("x", policy=parse_policy(source), facts={"n": 3}).reasons[-1] == "3 {x.__class__} {gone}"


names = st.sampled_from(["read", "shell", "mission.merge", "deploy.web", "deploy.db"])
globs = st.sampled_from(["*", "deploy.*", "read", "mission.*", "shell"])
asks = st.builds(Ask, role=st.sampled_from(Role), people=st.integers(1, 3), four_eyes=st.sampled_from(FourEyes))
whens = st.builds(
    When,
    action=st.lists(globs, min_size=1, max_size=2).map(tuple),
    kind=st.lists(st.sampled_from(Kind), max_size=2).map(tuple),
    level=st.lists(st.sampled_from(Level), max_size=2).map(tuple),
    env=st.lists(st.sampled_from(["dev", "prod"]), max_size=1).map(tuple),
    protected=st.none() | st.booleans(),
    secret=st.none() | st.booleans(),
    risk=st.sampled_from(Risk),
)


@st.composite
def rules(draw: Callable[[Any], Any]) -> Rule:
    """Any rule that does something."""
    risk, ask, deny = draw(st.none() | st.sampled_from(Risk)), draw(st.none() | asks), draw(st.booleans())
    given = {"risk": risk, "ask": ask, "deny": deny or (risk is None and ask is None)}
    return Rule(rule="r", because="so it is", when=draw(whens), **given)


policies = st.builds(
    Policy,
    actions=st.dictionaries(st.sampled_from(Risk), st.lists(globs, max_size=3).map(tuple)),
    secret_paths=st.just(("*.pem",)),
    rules=st.lists(rules(), max_size=8).map(tuple),
)
people = st.builds(
    Who,
    name=st.just("p"),
    kind=st.sampled_from(Kind),
    role=st.none() | st.sampled_from(Role),
    level=st.none() | st.sampled_from(Level),
)
contexts = st.builds(
    Context,
    env=st.sampled_from(["dev", "prod"]),
    protected=st.booleans(),
    paths=st.sampled_from([(), ("a.pem",), ("a.py",)]),
)


@given(names, people, contexts, policies)
def test_the_same_act_has_the_same_verdict(action: str, who: Who, context: Context, policy: Policy) -> None:
    first = assess(action, who, context, policy)
    copy = Policy.model_validate_json(policy.model_dump_json())
    assert assess(action, who.model_copy(), context.model_copy(), copy) == first


@given(names, people, contexts, policies)
def test_red_never_passes_by_itself(action: str, who: Who, context: Context, policy: Policy) -> None:
    verdict = assess(action, who, context, policy)
    assert verdict.risk is not Risk.RED or verdict.outcome is not Outcome.ALLOW
    assert (verdict.ask is None) == (verdict.outcome is Outcome.ALLOW)


@given(names, people, contexts, policies, rules(), st.integers(0, 8))
def test_one_rule_more_never_lets_more_pass(
    action: str, who: Who, context: Context, policy: Policy, rule: Rule, place: int
) -> None:
    more = policy.model_copy(update={"rules": (*policy.rules[:place], rule, *policy.rules[place:])})
    more = Policy.model_validate(more.model_dump())
    before, after = (assess(action, who, context, each) for each in (policy, more))
    assert after.risk.rank >= before.risk.rank
    order = list(Outcome)
    assert order.index(after.outcome) >= order.index(before.outcome)
    if before.ask:
        assert after.ask is not None
        assert after.ask.together(before.ask) == after.ask


@given(names, people, contexts, policies)
def test_a_rule_about_something_else_changes_nothing(action: str, who: Who, context: Context, policy: Policy) -> None:
    other = Rule(rule="r", because="elsewhere", when=When(action=("elsewhere.*",)), deny=True)
    more = Policy.model_validate(policy.model_dump() | {"rules": (*policy.rules, other)})
    assert assess(action, who, context, more) == assess(action, who, context, policy)
