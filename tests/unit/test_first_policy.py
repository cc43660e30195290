"""The policy that a workspace begins with, row by row of the requirements (POL-01..10)."""

import pytest
from pydantic import TypeAdapter, ValidationError

from models.domain.decisions import Terms
from models.domain.errors import InvalidInput
from models.domain.policy import Act, Context, Level, Outcome, Risk, Verdict, Who, assess, parse_policy
from models.domain.principals import Kind, Principal, Role
from models.domain.states import DecisionKind
from tests.fixtures.policies import FIRST, SOURCE

ROWS = """
POL-01  read_db        lead        -                         GREEN   allow
POL-01  post_comment   lead        -                         GREEN   allow
POL-01  read_db        intern      -                         GREEN   allow
POL-01  post_comment   intern      -                         GREEN   allow
POL-02  shell          lead        -                         YELLOW  allow
POL-02  git_commit     lead        -                         YELLOW  allow
POL-02  network_call   lead        -                         YELLOW  allow
POL-03  email          lead        -                         RED     ask
POL-03  social_post    lead        -                         RED     ask
POL-03  prod_deploy    lead        -                         RED     ask
POL-03  secret_access  lead        -                         RED     ask
POL-04  email          intern      -                         RED     ask
POL-04  email          specialist  -                         RED     ask
POL-04  prod_deploy    specialist  -                         RED     ask
POL-05  shell          intern      -                         YELLOW  ask
POL-05  git_commit     intern      -                         YELLOW  ask
POL-05  network_call   intern      -                         YELLOW  ask
POL-05  shell          specialist  -                         YELLOW  allow
POL-05  git_commit     specialist  -                         YELLOW  allow
POL-05  network_call   specialist  -                         YELLOW  allow
POL-06  shell          lead        usd=0.26,usd_left=0.25    YELLOW  ask
POL-06  read_db        lead        usd=0.26,usd_left=0.25    GREEN   ask
POL-06  shell          lead        usd=0.25,usd_left=0.25    YELLOW  allow
POL-07  read_db        lead        paths=config/secrets/db   RED     ask
POL-07  git_commit     lead        paths=.env                RED     ask
POL-07  read_db        lead        paths=docs/secret.md      GREEN   allow
POL-08  shell          lead        env=prod                  RED     ask
POL-08  git_commit     specialist  env=prod                  RED     ask
POL-08  shell          lead        env=dev                   YELLOW  allow
POL-08  read_db        lead        env=prod                  GREEN   allow
POL-08  mission.merge  lead        protected=true            RED     ask
V-31    launch_rocket  lead        -                         YELLOW  allow
V-31    launch_rocket  intern      -                         YELLOW  ask
"""
"""Requirement, action, level, context, risk, outcome; `-` is an empty context."""


def _rows() -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in ROWS.strip().splitlines()]


def _context(spelt: str) -> Context:
    given = dict(part.split("=") for part in spelt.split(",")) if spelt != "-" else {}
    return Context.model_validate({name: [value] if name == "paths" else value for name, value in given.items()})


def _judged(action: str, level: str, context: str) -> Verdict:
    return assess(action, Who(name="bot", kind=Kind.AGENT, level=Level(level)), _context(context), FIRST)


@pytest.mark.parametrize(("row", "action", "level", "context", "risk", "outcome"), _rows())
def test_each_row(row: str, action: str, level: str, context: str, risk: str, outcome: str) -> None:
    verdict = _judged(action, level, context)
    assert (verdict.risk, verdict.outcome) == (Risk(risk), Outcome(outcome)), row
    assert (verdict.ask is not None) is verdict.asks


def test_every_row_of_the_requirements_is_there() -> None:
    assert {row for row, *_ in _rows()} == {f"POL-0{number}" for number in range(1, 9)} | {"V-31"}


@pytest.mark.parametrize(("row", "action", "level", "context", "risk", "outcome"), _rows())
def test_the_same_input_and_version_give_the_same_verdict(
    row: str, action: str, level: str, context: str, risk: str, outcome: str
) -> None:
    """POL-09: also once an act was stored and read again, as verdicts are replayed."""
    act = Act(action=action, principal=Who(name="b", kind=Kind.AGENT, level=Level(level)), context=_context(context))
    again = Act.model_validate_json(act.model_dump_json())
    verdicts = [assess(each.action, each.principal, each.context, FIRST) for each in (act, again, act)]
    assert verdicts[0] == verdicts[1] == verdicts[2], row


def test_people_are_asked_as_the_policy_says() -> None:
    asks = {
        "email": _judged("email", "lead", "-").ask,
        "over budget": _judged("shell", "lead", "usd=2,usd_left=1").ask,
        "production": _judged("shell", "lead", "env=prod").ask,
    }
    assert {name: (ask.role, ask.people) for name, ask in asks.items() if ask} == {
        "email": (Role.OPERATOR, 1),
        "over budget": (Role.ADMIN, 1),
        "production": (Role.OPERATOR, 2),
    }


RESOLVERS = {"registration": Role.ADMIN, "budget": Role.ADMIN, "wiki_change": Role.ADMIN}


@pytest.mark.parametrize("kind", DecisionKind)
@pytest.mark.parametrize("role", Role)
def test_people_of_a_role_answer_each_kind(kind: str, role: Role) -> None:
    terms = Terms.of(None, FIRST.resolvers(kind), Risk.YELLOW, ["bot"])
    may = terms.refusal(_human("olga", role), (), others=True) is None
    assert may is role.includes(RESOLVERS.get(kind, Role.OPERATOR))


@pytest.mark.parametrize("risk", Risk)
def test_no_agent_says_that_a_ticket_is_done(risk: Risk) -> None:
    """APPR-09, also where a policy lets the agent answer all kinds that it does not name."""
    agent = Principal("w", "bot", Kind.AGENT, None, "k")
    for source in (SOURCE, "resolve: {'*': {agents: [bot]}}\n"):
        terms = Terms.of(None, parse_policy(source).resolvers("ticket_done"), risk, ["olga"])
        refused = terms.refusal(agent, (), others=False)
        assert refused
        assert refused.code == "not_permitted"
        assert terms.refusal(_human("maria", Role.OPERATOR), (), others=True) is None
    with pytest.raises(InvalidInput, match="no agent may answer 'ticket_done'"):
        parse_policy("resolve:\n  ticket_done:\n    agents: [bot]\n")


def _human(name: str, role: Role) -> Principal:
    return Principal("w", name, Kind.HUMAN, role, "k")


@pytest.mark.parametrize("level", ["boss", "Intern", "", "principal"])
def test_there_are_three_levels(level: str) -> None:
    """POL-10; over HTTP another value is 422."""
    assert [each.value for each in Level] == ["intern", "specialist", "lead"]
    with pytest.raises(ValidationError):
        TypeAdapter(Level).validate_python(level)
