"""Judges past acts again by another policy, to show what it would have changed before it is in force."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.domain.actions import asked_as
from models.domain.policy import Act, Ask, Outcome, Policy, Risk, Verdict, assess

EXAMPLES = 20


class Past(Protocol):
    """A verdict as it was given: by which version, of what act."""

    policy_version: int
    input: dict[str, Any]
    risk: str
    outcome: str


Given = TypeVar("Given", bound=Past)


class Change(NamedTuple):
    """From what to what a verdict would have gone, and from whom to whom its question, if any."""

    risk: tuple[Risk, Risk]
    outcome: tuple[Outcome, Outcome]
    ask: tuple[Ask | None, Ask | None]

    @property
    def is_one(self) -> bool:
        """Whether anything differs."""
        return any(before != after for before, after in self)


@dataclass(frozen=True)
class Example(Generic[Given]):
    """A verdict that would have been another."""

    past: Given
    verdict: Verdict
    change: Change


@dataclass(frozen=True)
class Tried(Generic[Given]):
    """What a policy would have changed: how often what, the most frequent first, and the newest of them."""

    judged: int
    changes: Counter[Change]
    examples: Sequence[Example[Given]]


def replay(past: Sequence[Given], laws: Mapping[int, Policy], policy: Policy) -> Tried[Given]:
    """Judge each act again; the examples are the newest whose risk or outcome differs, or who would have been asked.

    `laws` are the versions by which the acts were judged.
    """
    changes: Counter[Change] = Counter()
    examples: list[Example[Given]] = []
    for each in past:
        example = _again(each, laws[each.policy_version], policy)
        if example.change.is_one:
            changes[example.change] += 1
            if len(examples) < EXAMPLES:
                examples.append(example)
    return Tried(len(past), changes, examples)


def _again(past: Given, law: Policy, policy: Policy) -> Example[Given]:
    act = Act.model_validate(past.input)
    verdict = _judged(act, policy)
    asks = _asked(act, _judged(act, law), law), _asked(act, verdict, policy)
    change = Change((Risk(past.risk), verdict.risk), (Outcome(past.outcome), verdict.outcome), asks)
    return Example(past, verdict, change)


def _judged(act: Act, policy: Policy) -> Verdict:
    return assess(act.action, act.principal, act.context, policy)


def _asked(act: Act, verdict: Verdict, policy: Policy) -> Ask | None:
    """Say who would be asked, if anybody: whom the rules demand, and who may answer such questions at all."""
    kind = asked_as(act.action)
    if kind is None or not verdict.asks or verdict.ask is None:
        return None
    return policy.resolvers(kind).joined(verdict.ask)
