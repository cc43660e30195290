"""The policy: how much harm an act can do, and who is asked first. Written as YAML by operators, judged by `assess`.

An act has a class by its name, which rules may raise and none may lower; the strictest of all rules that apply decides.
So a policy with one rule more never lets more pass. RED always asks (POL-04), what nobody has classified is YELLOW.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from models.domain import spellings
from models.domain.errors import InvalidInput
from models.domain.money import Kept
from models.domain.names import alike, environment, one_spelling
from models.domain.plain_yaml import line_of, read_model
from models.domain.principals import Kind, Role
from models.domain.states import DecisionKind
from models.domain.wording import some

FILE = "policy.yaml"


class Risk(StrEnum):
    """How much harm an act can do (POL-01..03), the least first."""

    GREEN = "GREEN"
    YELLOW = "YELLOW"
    RED = "RED"

    @property
    def rank(self) -> int:
        """0 for the least harm."""
        return _RANKS[self]


_RANKS = {risk: rank for rank, risk in enumerate(Risk)}


class Outcome(StrEnum):
    """What becomes of an act, the least strict first."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Level(StrEnum):
    """How far an agent is trusted to act alone (POL-10)."""

    INTERN = "intern"
    SPECIALIST = "specialist"
    LEAD = "lead"


class FourEyes(StrEnum):
    """Whether the requester may answer: never, or only where nobody else of the workspace could."""

    UNLESS_ALONE = "unless_alone"
    REQUIRED = "required"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, Field(max_length=100, pattern=spellings.RULE)]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
Globs = Annotated[tuple[Glob, ...], Field(max_length=500)]
Sentence = Annotated[str, Field(min_length=1, max_length=300)]
Environment = Annotated[str, AfterValidator(environment)]
Fact = bool | int | str | tuple[str, ...]


class Who(_Part):
    """Who wants to act, as far as a policy cares."""

    name: str
    kind: Kind
    role: Role | None = None
    level: Level | None = None


def least_trusted(agents: Iterable[Who]) -> Who | None:
    """Pick the one by whom an act of several agents is judged."""
    levels = list(Level)
    return min(agents, key=lambda who: (levels.index(who.level or Level.INTERN), who.name), default=None)


class Context(_Part):
    """Where and on what: names and numbers, never contents, because every verdict keeps it.

    `usd` is what the act is expected to cost, `usd_left` what its caps leave. `facts` are what the caller knows more.
    Where there are `more_paths` than were kept, any of them may hold secrets.
    """

    env: Environment = "dev"
    protected: bool = False
    paths: tuple[str, ...] = ()
    more_paths: bool = False
    usd: Kept | None = None
    usd_left: Decimal | None = None
    facts: dict[str, Fact] = {}

    @property
    def over_budget(self) -> bool:
        """Whether the act would cost more than is left."""
        return self.usd is not None and self.usd_left is not None and self.usd > self.usd_left


class When(_Part):
    """The conditions of a rule: all that are given must hold; of several values one. `risk` means at least, by now."""

    action: Globs = ("*",)
    kind: tuple[Kind, ...] = ()
    role: tuple[Role, ...] = ()
    level: tuple[Level, ...] = ()
    env: tuple[Environment, ...] = ()
    protected: bool | None = None
    secret: bool | None = None
    over_budget: bool | None = None
    usd_above: Kept | None = None
    fact: tuple[str, ...] = ()
    risk: Risk = Risk.GREEN

    @field_validator("action", "kind", "role", "level", "env", "fact", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        one = (value,) if isinstance(value, str) else value
        return tuple(one) if isinstance(one, list) else one

    @cached_property
    def names(self) -> re.Pattern[str]:
        """The actions it is about."""
        return _any_of(self.action)

    def holds(self, action: str, who: Who, context: Context, secret: bool) -> bool:
        """Whether all conditions but `risk` hold, of an action spelt as policies compare it."""
        return (
            (not self.env or context.env in self.env)
            and self.protected in (None, context.protected)
            and self.secret in (None, secret)
            and self.names.fullmatch(action) is not None
            and self._is_who(who)
            and self.over_budget in (None, context.over_budget)
            and (self.usd_above is None or (context.usd is not None and context.usd > self.usd_above))
            and all(context.facts.get(name) for name in self.fact)
        )

    def _is_who(self, who: Who) -> bool:
        return (
            (not self.kind or who.kind in self.kind)
            and (not self.role or who.role in self.role)
            and (not self.level or who.level in self.level)
        )


class Ask(_Part):
    """Who must approve: how many different people, of which role at least, and whether the requester may be one."""

    role: Role = Role.OPERATOR
    people: Annotated[int, Field(ge=1, le=10)] = 1
    four_eyes: FourEyes = FourEyes.UNLESS_ALONE

    def together(self, other: "Ask") -> "Ask":
        """The stricter of both, in each respect."""
        return Ask(
            role=max(self.role, other.role, key=list(Role).index),
            people=max(self.people, other.people),
            four_eyes=max(self.four_eyes, other.four_eyes, key=list(FourEyes).index),
        )


class Rule(_Part):
    """One sentence of the policy: when this holds, the act is so risky, somebody is asked, or it is denied."""

    rule: Name
    because: Sentence
    when: When = When()
    risk: Risk | None = None
    ask: Ask | None = None
    deny: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> "Rule":
        if self.risk is None and self.ask is None and not self.deny:
            raise ValueError("the rule changes nothing: give it a `risk`, an `ask` or `deny: true`")
        return self

    @property
    def outcome(self) -> Outcome:
        """The least that becomes of an act that the rule is about."""
        return Outcome.DENY if self.deny else Outcome.ASK if self.ask else Outcome.ALLOW

    def reason(self, facts: dict[str, Fact]) -> str:
        """Say why it fired, with the facts that its sentence names in braces."""
        return _NAMED.sub(lambda found: _spelt(facts.get(found[1], found[0])), self.because)


class Resolvers(_Part):
    """Who may answer a kind of decision: people of this role or higher, and the agents named here."""

    role: Role = Role.OPERATOR
    agents: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)] = ()

    def joined(self, ask: Ask | None) -> Ask:
        """What a question takes: what the rules demand, of people who may answer its kind."""
        return (ask or Ask()).together(Ask(role=self.role))

    @field_validator("agents")
    @classmethod
    def _no_patterns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if set(name) & set("*?[]"):
                raise ValueError(f"{name!r} is a pattern: name each agent that may answer")
        return tuple(map(one_spelling, names))


PEOPLE_ONLY = frozenset({DecisionKind.TICKET_DONE})
"""Kinds of decisions that no policy lets an agent answer: whether work is done, a human says."""


class Act(_Part):
    """What somebody wants to do: all that a verdict depends on besides the policy."""

    action: str
    principal: Who
    context: Context


class Verdict(_Part):
    """What the policy says of an act. `rules` are the names of those that fired, `reasons` their sentences.

    `ask` is None of an act that is allowed; of one that is denied it is what asking about it nevertheless would take.
    """

    risk: Risk
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    ask: Ask | None = None

    @property
    def asks(self) -> bool:
        """Whether a human must answer first."""
        return self.outcome is Outcome.ASK

    @property
    def refusal(self) -> str:
        """The code by which an act is refused at once that is not allowed, as nobody is asked about it."""
        return "policy_denies" if self.outcome is Outcome.DENY else "policy_asks"

    def asking(self, because: str) -> "Verdict":
        """The same of an act that takes an answer whatever the policy says; what is denied stays so."""
        return self.telling(because) if self.outcome is Outcome.ALLOW else self

    def telling(self, because: str) -> "Verdict":
        """The same with a reason more, which is told also where the policy asks or denies."""
        told = self.model_copy(update={"reasons": (*self.reasons, because)})
        if self.outcome is not Outcome.ALLOW:
            return told
        return told.model_copy(update={"outcome": Outcome.ASK, "ask": Ask()})


class Size(_Part):
    """How many names each part of a policy says: the actions that have a class, the rules, and so on."""

    actions: int
    secret_paths: int
    rules: int
    resolve: int


class Policy(_Part):
    """A version of the law: the classes of actions, the rules from top to bottom, who may answer what."""

    actions: dict[Risk, Globs] = {}
    secret_paths: Annotated[tuple[Glob, ...], Field(max_length=100)] = ()
    """Each is held against each path of an act."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=1000)] = ()
    resolve: dict[str, Resolvers] = {}

    @cached_property
    def classes(self) -> tuple[tuple[Risk, re.Pattern[str]], ...]:
        """The classes of actions, the worst first."""
        return tuple((risk, _any_of(self.actions[risk])) for risk in reversed(Risk) if self.actions.get(risk))

    @cached_property
    def secrets(self) -> re.Pattern[str]:
        """The paths that hold secrets."""
        return _any_of(self.secret_paths)

    @property
    def size(self) -> Size:
        """How much it says: a version that says less than another may hold less."""
        classified = sum(map(len, self.actions.values()))
        parts = {name: len(getattr(self, name)) for name in Size.model_fields}
        return Size(**parts | {"actions": classified})

    def classify(self, action: str) -> Risk | None:
        """Find an action's own risk, the worst that is given to it; None where nobody has said."""
        return next((risk for risk, names in self.classes if names.fullmatch(alike(action))), None)

    def resolvers(self, kind: str) -> Resolvers:
        """Who may answer a kind of decision."""
        found = self.resolve.get(kind, self.resolve.get("*", Resolvers()))
        return found.model_copy(update={"agents": ()}) if kind in PEOPLE_ONLY else found

    @field_validator("resolve")
    @classmethod
    def _people_only(cls, resolve: dict[str, Resolvers]) -> dict[str, Resolvers]:
        for kind in PEOPLE_ONLY & resolve.keys():
            if resolve[kind].agents:
                raise ValueError(f"no agent may answer '{kind}': name a role only")
        return resolve


def assess(action: str, principal: Who, context: Context, policy: Policy) -> Verdict:
    """Judge an act: the same act under the same policy has the same verdict, whoever asks and whenever."""
    own = policy.classify(action)
    risk = own or Risk.YELLOW
    secret = context.more_paths or any(policy.secrets.fullmatch(alike(path)) for path in context.paths)
    name, fired = alike(action), []
    for rule in policy.rules:
        if risk.rank >= rule.when.risk.rank and rule.when.holds(name, principal, context, secret):
            fired.append(rule)
            risk = max(risk, rule.risk or risk, key=lambda each: each.rank)
    return _verdict(action, own, risk, fired, context)


@lru_cache(maxsize=16)  # of a long one it keeps more than a megabyte
def parse_policy(source: str) -> Policy:
    """Read a policy; one that was read of late is not read again, for a long one takes most of a second.

    Raises:
        InvalidInput: `policy_invalid`; the message says on which line what is wrong.
    """
    data = source.encode()
    policy = read_model(data, FILE, "policy_invalid", Policy)
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        if rule.rule in seen:
            line = line_of(data, ("rules", number, "rule"))
            told = f"{FILE}: line {line}: there are two rules {rule.rule!r}; give each a name of its own"
            raise InvalidInput("policy_invalid", told, line=line)
        seen.add(rule.rule)
    return policy


def _verdict(action: str, own: Risk | None, risk: Risk, fired: list[Rule], context: Context) -> Verdict:
    outcome = max((rule.outcome for rule in fired), key=list(Outcome).index, default=Outcome.ALLOW)
    if risk is Risk.RED and outcome is Outcome.ALLOW:
        outcome = Outcome.ASK
    ask = None if outcome is Outcome.ALLOW else Ask()
    for rule in fired:
        ask = ask.together(rule.ask) if ask and rule.ask else ask
    said = [] if own in (Risk.GREEN, Risk.YELLOW) else [_own_class(action, own)]
    return Verdict(
        risk=risk,
        outcome=outcome,
        reasons=(*said, *(rule.reason(context.facts) for rule in fired)),
        rules=tuple(rule.rule for rule in fired),
        ask=ask,
    )


def _own_class(action: str, own: Risk | None) -> str:
    return f"{action} is RED" if own else f"{action} is in no class of the policy, and so YELLOW"


def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Match any of some globs, of what is spelt `alike`; none match nothing."""
    return re.compile("|".join(translate(alike(glob)) for glob in globs) or r"(?!)")


def _spelt(value: Any) -> str:
    """Spell a fact within a sentence; of one that is only said to hold nobody knows what it is."""
    if isinstance(value, tuple):
        return some(value)
    return "some" if value is True else str(value)


_NAMED = re.compile(r"\{([a-z_]+)\}")
