"""What events tell of a decision: of one type the same, whoever answered it, and whoever asked."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.domain.decisions import Terms
from models.domain.events import EventType
from models.domain.policy import Outcome, Risk
from models.domain.states import DecisionKind, DecisionStatus
from models.store import answers, decisions, governance, questions
from models.store.database import Database
from models.store.events import Actor
from models.store.questions import Question
from tests.fixtures.api import Team
from tests.fixtures.budgets import told
from tests.fixtures.clocks import Clock, clock
from tests.fixtures.runs import human

__all__ = ["clock"]
YES, NO = DecisionStatus.APPROVED, DecisionStatus.DENIED
POLICY, RECONCILER = Actor("policy", "task-1"), Actor("reconciler", "pass-1")
COMMON = {
    *("mission_id", "kind", "risk", "reasons", "binding", "requested_by", "expires_at"),
    *("explanation", "single_operator"),
}
MORE = {"decision.approval_given": {"approvals", "of"}}
"""What a type tells besides; every other tells just the same."""


@dataclass(frozen=True)
class Office:
    """Where questions are put and answered."""

    db: Database
    workspace_id: str
    clock: Clock

    async def ask(self, people: int = 1, outcome: Outcome = Outcome.ASK) -> None:
        """Put a question with ten hours' time, or let the policy answer it."""
        terms, lasts = Terms(people=people), timedelta(hours=10)
        asked = Question(
            self.workspace_id,
            "one",
            DecisionKind.AGENT_QUESTION,
            Risk.YELLOW,
            ["it is unsure"],
            shown={},
            binding={"which": "this"},
            requested_by="robot",
            terms=terms,
            expires_in=lasts,
            outcome=outcome,
        )
        async with self.db.workspace(self.workspace_id) as session:
            await questions.put(session, asked, Actor("robot", "request-1"))

    async def answer(self, by: str, status: DecisionStatus) -> None:
        """Answer as a person."""
        async with self.db.workspace(self.workspace_id) as session:
            await answers.give(session, human(self.workspace_id, by), "one", status, f"{by} read it", "request-2")


async def one_approves(office: Office) -> None:
    await office.ask()
    await office.answer("anna", YES)


async def one_denies(office: Office) -> None:
    await office.ask()
    await office.answer("anna", NO)


async def two_approve(office: Office) -> None:
    await office.ask(people=2)
    await office.answer("anna", YES)
    await office.answer("bert", YES)


async def the_second_denies(office: Office) -> None:
    await office.ask(people=2)
    await office.answer("anna", YES)
    await office.answer("bert", NO)


async def the_policy_allows(office: Office) -> None:
    await office.ask(outcome=Outcome.ALLOW)


async def the_policy_denies(office: Office) -> None:
    await office.ask(outcome=Outcome.DENY)


async def nobody_in_time(office: Office) -> None:
    await office.ask()
    for hours in (6, 11):
        office.clock.show(hours)
        async with office.db.system() as session:
            await governance.tell_half_time(session, RECONCILER, 100)
            await governance.expire_overdue(session, RECONCILER, 100)


async def its_mission_finds_time_over(office: Office) -> None:
    await office.ask()
    office.clock.show(11)
    async with office.db.workspace(office.workspace_id) as session:
        await governance.expire(session, office.workspace_id, "one", POLICY)


async def it_is_withdrawn(office: Office) -> None:
    await office.ask()
    async with office.db.workspace(office.workspace_id) as session:
        await governance.withdraw(session, office.workspace_id, "one", Actor("worker", "task-1"))


ASKED = ("requested", "robot", None)
ENDS: dict[Callable[[Office], Awaitable[None]], list[tuple[str, str, str | None]]] = {
    one_approves: [ASKED, ("approved", "anna", "anna read it")],
    one_denies: [ASKED, ("denied", "anna", "anna read it")],
    two_approve: [ASKED, ("approval_given", "anna", "anna read it"), ("approved", "bert", "bert read it")],
    the_second_denies: [ASKED, ("approval_given", "anna", "anna read it"), ("denied", "bert", "bert read it")],
    the_policy_allows: [("approved", "policy", None)],
    the_policy_denies: [("denied", "policy", None)],
    nobody_in_time: [ASKED, ("half_time", "reconciler", None), ("expired", "reconciler", None)],
    its_mission_finds_time_over: [ASKED, ("expired", "policy", None)],
    it_is_withdrawn: [ASKED, ("canceled", "worker", None)],
}
"""All ends of a question: the events, by whom, and the words of the answer."""


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_type_tells_the_same_whoever_answers(
    db: Database, team: Team, clock: Clock, end: Callable[[Office], Awaitable[None]]
) -> None:
    await end(Office(db, team.workspace_id, clock))
    events = await told(db, team.workspace_id, "decision.%")
    said = [(event["type"].removeprefix("decision."), event["actor"], event["data"]["explanation"]) for event in events]
    assert said == ENDS[end]
    for event in events:
        data: dict[str, Any] = event["data"]
        assert set(data) == COMMON | MORE.get(event["type"], set()), event["type"]
        assert (data["requested_by"], data["binding"]) == ("robot", {"which": "this"})


async def test_answers_stand_in_their_order_whoever_began_first(db: Database, team: Team, clock: Clock) -> None:
    office = Office(db, team.workspace_id, clock)
    await office.ask(people=2)
    async with db.workspace(team.workspace_id) as session:
        await session.execute(text("SELECT pg_current_xact_id()"))
        await office.answer("anna", YES)
        bert = human(team.workspace_id, "bert")
        last = await answers.give(session, bert, "one", YES, "bert read it", "request-3")
        named = [one.principal for one in await decisions.answers(session, last)]
    assert (last.resolved_by, named) == ("bert", ["anna", "bert"])


def test_no_type_is_left_out() -> None:
    known = {kind.value for kind in EventType if kind.value.startswith("decision.")}
    assert {f"decision.{kind}" for said in ENDS.values() for kind, _, _ in said} == known
