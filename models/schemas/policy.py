"""Bodies of the policy routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.contracts.missions import Named
from models.domain.money import Usd
from models.domain.plain_yaml import MAX_BYTES
from models.domain.policy import Act, Ask, Context, Fact, Level, Outcome, Risk, Size, Who
from models.domain.principals import Kind, Role
from models.domain.replaying import Example, Tried
from models.schemas.envelope import Body

Source = Annotated[str, Field(max_length=MAX_BYTES, description="The policy in YAML.")]
MAX_TRIED = 10_000
MAX_COMPARED = 1_000_000
"""Rules times acts of one try, which take about a second."""


class PolicyCreate(Body):
    """Makes a version of the policy, which is in force once it is activated."""

    source: Source
    note: Annotated[str, Field(max_length=2000, description="What it changes, and why.")] = ""


class PolicyVersionSummary(BaseModel):
    """A version of the policy, without its text."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    digest: str
    note: str
    created_by: str
    created_at: datetime


class PolicyVersionView(PolicyVersionSummary):
    """A version of the policy, with its text, and how much it says."""

    source: str
    size: Size


class PolicyActivated(PolicyVersionView):
    """The version that is in force now, and which was when it was asked for, with how much that one says."""

    before: int
    before_size: Size


class PolicyTry(Body):
    """Judges past acts again: by a text, or by a version that is kept."""

    source: Source | None = None
    version: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    limit: Annotated[
        int,
        Field(ge=1, le=MAX_TRIED, description="So many of the newest; times the rules, a million."),
    ] = 1_000

    @model_validator(mode="after")
    def _one_of_both(self) -> "PolicyTry":
        if (self.source is None) is (self.version is None):
            raise ValueError("give either `source` or `version`")
        return self


class Judgement(BaseModel):
    """What a policy says: the risk, what becomes of the act, and the rules that say so."""

    model_config = ConfigDict(from_attributes=True)

    risk: Risk
    outcome: Outcome
    rules: tuple[str, ...]
    reasons: tuple[str, ...]


class VerdictView(Judgement):
    """A verdict that was given: on what act, under which version, with all that it was told."""

    verdict_id: str
    policy_version: int
    action: str
    input: Act
    mission_id: str | None
    at: datetime


Asks = Annotated[tuple[Ask | None, Ask | None], Field(description="Who was to be asked, and who would have been.")]


class Changed(BaseModel):
    """How many acts would have gone from one verdict to another."""

    risk: tuple[Risk, Risk]
    outcome: tuple[Outcome, Outcome]
    ask: Asks
    count: int


class ChangedAct(BaseModel):
    """An act whose verdict would have been another."""

    verdict_id: str
    at: datetime
    action: str
    mission_id: str | None
    policy_version: int
    before: Judgement
    after: Judgement
    ask: Asks

    @classmethod
    def of(cls, example: Example[Any]) -> "ChangedAct":
        """Show one that was found."""
        past = {name: getattr(example.past, name) for name in ("verdict_id", "at", "action", "mission_id")}
        before, after = (Judgement.model_validate(each) for each in (example.past, example.verdict))
        version = example.past.policy_version
        return cls(**past, policy_version=version, before=before, after=after, ask=example.change.ask)


class PolicyTried(BaseModel):
    """What a policy would have changed among past verdicts."""

    judged: int
    changed: int
    changes: tuple[Changed, ...]
    examples: tuple[ChangedAct, ...]

    @classmethod
    def of(cls, tried: Tried[Any]) -> "PolicyTried":
        """Show what judging again has found."""
        changes = tuple(Changed(**change._asdict(), count=count) for change, count in tried.changes.most_common())
        examples = tuple(map(ChangedAct.of, tried.examples))
        return cls(judged=tried.judged, changed=tried.changes.total(), changes=changes, examples=examples)


class As(Body):
    """Who would act; an agent without a level is one of the lowest."""

    name: Named = "somebody"
    kind: Kind = Kind.HUMAN
    role: Role | None = None
    level: Level | None = None


class PolicyExplain(Body):
    """Asks what the policy in force says of an act; nothing is done or kept."""

    action: Annotated[str, Field(min_length=1, max_length=200)]
    principal: Annotated[As, Field(alias="as")]
    env: Annotated[str | None, Field(max_length=100, description="Left out, what the installation is.")] = None
    protected: bool = False
    paths: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=200)] = ()
    usd: Usd | None = None
    usd_left: Usd | None = None
    facts: Annotated[dict[str, Fact], Field(default_factory=dict, max_length=100)]

    def act(self, home: str) -> Act:
        """Give the act as the policy sees it in an installation whose environment is `home`."""
        said = (Context.model_fields.keys() & type(self).model_fields.keys()) - {"env"}
        context = Context(env=self.env or home, **{name: getattr(self, name) for name in said})
        who = Who(**dict(self.principal))
        if who.kind is Kind.AGENT and who.level is None:
            who = who.model_copy(update={"level": Level.INTERN})
        return Act(action=self.action, principal=who, context=context)


class Explained(Judgement):
    """What the policy in force says, and who would have to approve."""

    policy_version: int
    ask: Ask | None
