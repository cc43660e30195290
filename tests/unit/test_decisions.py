"""Who may answer a question, and what its subject has cost."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.decisions import Terms, cost_so_far
from models.domain.policy import Ask, FourEyes, Resolvers, Risk
from models.domain.principals import Kind, Principal, Role


def human(name: str, role: Role = Role.OPERATOR) -> Principal:
    return Principal("w", name, Kind.HUMAN, role, "k")


ANNA, BERT, MIA = human("anna"), human("bert", Role.ADMIN), human("mia", Role.MEMBER)
ROBOT, OTHER = (Principal("w", name, Kind.AGENT, None, "k") for name in ("robot", "other"))
SERVICE = Principal("w", "probe", Kind.SERVICE, None, "k")


def code(terms: Terms, who: Principal, given: tuple[str, ...] = (), *, others: bool = True) -> str | None:
    refusal = terms.refusal(who, given, others=others)
    return refusal.code if refusal else None


@pytest.mark.parametrize(
    ("terms", "who", "refused"),
    [
        (Terms(), ANNA, None),
        (Terms(), MIA, "not_permitted"),
        (Terms(), ROBOT, "not_permitted"),
        (Terms(), SERVICE, "not_permitted"),
        (Terms(role=Role.ADMIN), ANNA, "not_permitted"),
        (Terms(role=Role.ADMIN), BERT, None),
        (Terms(agents=("robot",)), ROBOT, None),
        (Terms(agents=("robot",)), OTHER, "not_permitted"),
        (Terms(agents=("robot",), requesters=("robot",)), ROBOT, "own_decision"),
        (Terms(requesters=("anna",)), ANNA, "own_decision"),
        (Terms(requesters=("anna",)), BERT, None),
    ],
)
def test_who_may(terms: Terms, who: Principal, refused: str | None) -> None:
    assert code(terms, who) == refused


@pytest.mark.parametrize(
    ("terms", "refused"),
    [
        (Terms(requesters=("anna",)), None),
        (Terms(requesters=("anna",), four_eyes=FourEyes.REQUIRED), "own_decision"),
        (Terms(requesters=("anna",), people=2), "own_decision"),
    ],
)
def test_alone_the_requester_may_where_the_policy_leaves_it(terms: Terms, refused: str | None) -> None:
    assert code(terms, ANNA, others=False) == refused


def test_an_agent_is_never_alone_enough_for_its_own() -> None:
    assert code(Terms(agents=("robot",), requesters=("robot",)), ROBOT, others=False) == "own_decision"


def test_nobody_counts_twice() -> None:
    terms = Terms(people=2)
    assert code(terms, ANNA, ("anna",)) == "already_approved"
    assert code(terms, BERT, ("anna",)) is None


@pytest.mark.parametrize("here", ["anna", "home/anna"])
def test_a_visitor_and_a_member_of_one_name_are_one_person(here: str) -> None:
    visitor = human("anna", Role.PLATFORM_ADMIN).visiting("elsewhere")
    for who in (ANNA, visitor):
        assert code(Terms(people=2), who, (here,)) == "already_approved"
        assert code(Terms(requesters=(here,)), who) == "own_decision"
        assert code(Terms(people=2), who, ("home/bert",)) is None


@pytest.mark.parametrize(("asker", "refused"), [("(unknown)/anna", None), ("anna", "own_decision")])
def test_what_a_stranger_is_called_is_nobodys_name(asker: str, refused: str | None) -> None:
    assert code(Terms().asked_by([asker, "bert"]), ANNA) == refused


@given(st.lists(st.sets(st.sampled_from("abcd")), min_size=2, max_size=6))
def test_who_acted_once_is_never_only_named(steps: list[set[str]]) -> None:
    terms, acted, named = Terms(), set[str](), set[str]()
    for did, said in zip(steps[::2], steps[1::2], strict=False):
        terms, acted, named = terms.asked_by(did, said), acted | did, named | said
    assert terms == Terms(requesters=tuple(sorted(acted | named)), named=tuple(sorted(named - acted)))


def test_to_whom_others_count() -> None:
    """Who acted is not alone beside those who are only named; who is only named is, beside those who acted."""
    terms = Terms(requesters=("anna", "bert"), named=("bert",))
    assert [sorted(terms.besides(who)) for who in (ANNA, BERT)] == [["anna"], ["anna", "bert"]]


def test_terms_join_what_rules_and_kind_demand() -> None:
    resolvers = Resolvers(role=Role.ADMIN, agents=("robot",))
    terms = Terms.of(Ask(four_eyes=FourEyes.REQUIRED), resolvers, Risk.YELLOW, ["olga", "", "olga"])
    assert terms == Terms(role=Role.ADMIN, four_eyes=FourEyes.REQUIRED, agents=("robot",), requesters=("olga",))
    assert Terms.of(Ask(people=2), Resolvers(), Risk.YELLOW, []).people == 2


@pytest.mark.parametrize(
    ("ask", "risk"), [(None, Risk.RED), (Ask(people=2), Risk.YELLOW), (Ask(role=Role.ADMIN), Risk.YELLOW)]
)
def test_no_agent_answers_what_is_red_or_takes_several_people(ask: Ask | None, risk: Risk) -> None:
    assert Terms.of(ask, Resolvers(agents=("robot",)), risk, []).agents == ()


@pytest.mark.parametrize(
    ("question", "spent", "cost"),
    [
        ({}, {}, {}),
        ({"settled_usd": "0.5", "settled_tokens": 7, "usd": None}, {}, {"usd": "0.5", "tokens": 7}),
        ({"usd": "0.25"}, {}, {"usd": Decimal("0.25"), "tokens": 0}),
        ({"usd": "0.25"}, {"usd": 1, "own_usd": 9, "tokens": 3}, {"usd": Decimal("1.25"), "tokens": 3}),
        ({}, {"usd": 1, "own_usd": "0.5", "tokens": 3}, {"usd": Decimal("1.5"), "tokens": 3}),
    ],
)
def test_what_the_subject_of_a_question_has_cost(
    question: dict[str, Any], spent: dict[str, Any], cost: dict[str, Any]
) -> None:
    assert cost_so_far(question, spent) == cost
