"""On which terms a question may be answered: by whom, by how many, and never by who asked (V-23)."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from models.domain.errors import Conflict, MissionControlError, NotPermitted
from models.domain.events import Event, EventType
from models.domain.names import STRANGERS
from models.domain.policy import Ask, FourEyes, Resolvers, Risk
from models.domain.principals import Kind, Principal, Role

QUESTION = "decision"
"""The kind of subject of events about questions."""


def people(names: Collection[str]) -> frozenset[str]:
    """Name the people behind the names that facts record.

    A visitor's `<home>/<name>` and a member's `<name>` count as one: whoever makes a workspace is both. What somebody
    without a key is called is a claim, and nobody's name.
    """
    return frozenset(name.rpartition("/")[2] for name in names if not name.startswith(STRANGERS))


def shown_to_agent(event: Event, readable: Collection[str]) -> Event | None:
    """Give what an agent sees of an event: of questions, those that are `readable` to it, and None of others.

    Nor does it see why another agent was let in or kept out, which an event about that agent tells, too.
    """
    if event.subject.kind == QUESTION and event.subject.id not in readable:
        return None
    said = without_words(event.type, event.data)
    return event if said is event.data else event.model_copy(update={"data": said})


def without_words(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Leave out of what an event tells the words of whoever let an agent in, or kept it out."""
    if kind not in (EventType.AGENT_APPROVED, EventType.AGENT_REJECTED):
        return data
    return {name: value for name, value in data.items() if name != "explanation"}


def cost_so_far(question: Mapping[str, Any], spent: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the subject of a question has cost, in dollars (`usd`) and `tokens`: nothing where nobody counts that.

    A question about a run tells what was settled when it was put. `spent` is what the mission that it is about has paid
    by now; what hosts work for one is settled in its end, and so is told as it was when the question was put.
    """
    if "settled_usd" in question:
        return {name: question[f"settled_{name}"] for name in ("usd", "tokens")}
    if not spent and "usd" not in question:
        return {}
    own = question.get("usd", spent.get("own_usd", 0))
    return {"usd": spent.get("usd", 0) + Decimal(own), "tokens": spent.get("tokens", 0)}


class Terms(BaseModel):
    """What the policy demanded when the question was put.

    `requesters` filed, started, are assigned, wrote or brought what it is about; `named` are those of them who did
    nothing for it: others say that they are assigned, or that they wrote it.
    """

    model_config = ConfigDict(frozen=True)

    role: Role = Role.OPERATOR
    people: int = 1
    four_eyes: FourEyes = FourEyes.UNLESS_ALONE
    agents: tuple[str, ...] = ()
    requesters: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, ask: Ask | None, resolvers: Resolvers, risk: Risk, acted: Collection[str], named: Collection[str] = ()
    ) -> "Terms":
        """Join what the rules that fired demand with who may answer the kind.

        No agent answers what is RED, what a rule wants a higher role for than its kind takes, or as one of several.
        """
        asked = resolvers.joined(ask)
        people_only = risk is Risk.RED or asked.people > 1 or asked.role is not resolvers.role
        agents = () if people_only else resolvers.agents
        return cls(**dict(asked), agents=agents).asked_by(acted, named)

    def asked_by(self, acted: Collection[str], named: Collection[str] = ()) -> "Terms":
        """The same terms, of what these have asked for, too."""
        did = self.acted | {*acted}
        requesters, only = {*self.requesters, *acted, *named} - {""}, {*self.named, *named} - did - {""}
        return self.model_copy(update={"requesters": tuple(sorted(requesters)), "named": tuple(sorted(only))})

    @property
    def asking(self) -> frozenset[str]:
        """The people who asked."""
        return people(self.requesters)

    @property
    def acted(self) -> frozenset[str]:
        """The requesters who did something for it."""
        return frozenset(self.requesters) - frozenset(self.named)

    def besides(self, who: Principal) -> frozenset[str]:
        """Tell who does not count when it is asked whether somebody else could answer, so that `who` is not alone.

        To one who acted, whoever is only named does: else a requester would be alone by writing down the others.
        """
        acted = people(self.acted)
        return acted if who.name in acted else self.asking

    def may_be_own(self, others: bool) -> bool:
        """Whether a requester may answer: where one person is enough, and `others` who could are not there."""
        return self.four_eyes is FourEyes.UNLESS_ALONE and self.people == 1 and not others

    def refusal(self, who: Principal, given: Collection[str], *, others: bool) -> MissionControlError | None:
        """Say why somebody may not answer; None where they may. `given` are those whose approval rules out another."""
        if not self._admits(who):
            agents = f", or an agent's of: {', '.join(self.agents)}" if self.agents else ""
            takes = f"a key of role {self.role.value} or higher{agents}"
            return NotPermitted("not_permitted", f"{who.known_as!r} may not answer this: it takes {takes}")
        if who.name in self.asking and not (who.kind is Kind.HUMAN and self.may_be_own(others)):
            return NotPermitted(
                "own_decision",
                "you asked for this: somebody else must answer it, of role "
                f"{self.role.value} or higher; an admin makes a key for them with `mission-control key create`",
            )
        if who.name in people(given):
            return Conflict(
                "already_approved",
                f"you have approved this already; it takes {self.people} different people: somebody else must, too; "
                "you may still deny it",
            )
        return None

    def _admits(self, who: Principal) -> bool:
        if who.kind is Kind.AGENT:
            return who.known_as in self.agents
        return who.kind is Kind.HUMAN and who.role is not None and who.role.includes(self.role)
