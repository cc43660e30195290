"""How a limit is named and told of, and what is said and asked where a run meets it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.domain.budgets import ASKED, Cap, Scope, raised
from models.domain.canonical import canonical_json
from models.domain.caps import ZERO, Counter, held, promised
from models.domain.errors import Conflict
from models.domain.events import Subject
from models.domain.money import written
from models.domain.wording import shortened

_NAMES = {
    Scope.RUN: "the run's limit",
    Scope.TICKET: "the limit of ticket {subject!r}",
    Scope.AGENT_DAY: "the limit of agent {subject!r} for {period}",
    Scope.WORKSPACE_MONTH: "the workspace's limit for {period}",
}


@dataclass(frozen=True)
class Hit:
    """A limit that a run met: its counter, and what the run asked for, if anything."""

    run_id: str
    counter: Counter
    wanted: Cap = ZERO

    @property
    def workspace_id(self) -> str:
        """Whose workspace it is."""
        return str(self.counter["workspace_id"])

    @property
    def is_asked(self) -> bool:
        """Whether a human is asked to raise it."""
        return Scope(self.counter["scope"]) in ASKED

    @property
    def about(self) -> Subject:
        """What events and alerts about it are about."""
        name = limit_id(self.workspace_id, self.counter["scope"], self.counter["subject"])
        return Subject.kept("budget", name)  # tickets of older versions have longer names, and are paid for, too

    @property
    def proposed(self) -> dict[str, Any]:
        """The cap that would be enough."""
        return as_told(raised(held(self.counter), promised(self.counter), self.wanted))

    @property
    def told(self) -> dict[str, Any]:
        """What is told of it."""
        return {
            **_place(self.counter),
            **as_told(held(self.counter)),
            "settled_usd": written(self.counter["settled_usd"]),
            "settled_tokens": self.counter["settled_tokens"],
            "asked_usd": _text(self.wanted.usd),
            "asked_tokens": self.wanted.tokens,
            "run_id": self.run_id,
        }

    @property
    def values(self) -> dict[str, Any]:
        """As statements take it."""
        return _place(self.counter) | {
            "run_id": self.run_id,
            "reason": reason(self.counter),
            "held": why_held(self.counter),
            "is_asked": self.is_asked,
            "told": canonical_json(self.told).decode(),
            "named": self.about.id,
        }


def limit_id(workspace_id: str, scope: str, subject: str) -> str:
    """Name a limit as events and alerts do."""
    return f"{scope}/{subject or workspace_id}"


def exceeded(crossed: Counter) -> Conflict:
    """Refuse what a crossed limit leaves nothing for."""
    return Conflict("budget_exceeded", why_held(crossed), **named(crossed))


def named(counter: Counter) -> dict[str, Any]:
    """Name a limit to programs."""
    return {"limit": counter["scope"], "subject": counter["subject"], "period": counter["period"]}


def reason(crossed: Counter) -> str:
    """Say which limit was crossed, and what helps."""
    is_asked = Scope(crossed["scope"]) in ASKED
    helps = "an admin may raise it" if is_asked else "wait until its window turns, or let an admin raise it"
    return f"{described(crossed)} is crossed; {helps}"


def why_held(crossed: Counter) -> str:
    """Say to what a closed limit holds why it does: that it was not raised, where that was denied."""
    denied = crossed.get("denied")
    return f"{described(crossed)} is crossed, and {denied}" if denied else reason(crossed)


def denial(by: str, why: str) -> str:
    """Say that a limit is not raised."""
    return f"{by} denied to raise it: {shortened(why, _SAID)}"


_SAID = 200
"""Characters of an explanation; all of it stands in the decision."""


def described(counter: Counter) -> str:
    """Name a limit and its caps."""
    usd, tokens = counter["cap_usd"], counter["cap_tokens"]
    caps = [f"{usd.normalize():f} USD"] if usd is not None else []
    caps += [f"{tokens} tokens"] if tokens is not None else []
    return f"{_NAMES[Scope(counter['scope'])].format(**counter)} of {' and '.join(caps)}"


def as_told(cap: Cap) -> dict[str, Any]:
    """Tell a cap. Dollars travel as text, so that nobody rounds them."""
    return {"cap_usd": _text(cap.usd), "cap_tokens": cap.tokens}


def from_told(told: Mapping[str, Any]) -> Cap:
    """Read a cap that was told."""
    return Cap(None if told["cap_usd"] is None else Decimal(told["cap_usd"]), told["cap_tokens"])


def _place(counter: Counter) -> dict[str, Any]:
    return {name: counter[name] for name in ("scope", "subject", "period")}


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else written(amount)
