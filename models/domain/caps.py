"""A counter and its cap: which one is meant for it, and what another one does to it (BUDG-04)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.domain.budgets import Cap, Key, Owner, Scope, cap_of, not_below, reaches

Counter = Mapping[str, Any]
"""What one limit may spend, has spent and has promised, as its row tells."""
Caps = Mapping[Key, Cap]
ZERO = Cap(Decimal(0), 0)


@dataclass(frozen=True)
class Change:
    """A counter, the cap that was meant for it, and the one that is meant now."""

    counter: Counter
    before: Cap
    after: Cap

    @property
    def is_one(self) -> bool:
        """Whether another cap is meant, or the counter has not the one that is: it was away when that was set."""
        return self.before != self.after or (held(self.counter) != self.after and not self._is_held)

    @property
    def recapped(self) -> tuple[Cap, bool]:
        """Give the cap, which never falls below what is promised: the limit closes instead, until it is raised."""
        cap = not_below(self.after, promised(self.counter))
        return cap, cap != self.after or (self.counter["crossed"] and not self._opens)

    @property
    def _opens(self) -> bool:
        """Whether a closed limit is raised, and no part of it is spent up: more tokens are no more dollars.

        The cap that was meant before may be lower than the one that it then had to be given.
        """
        is_raised = _is_higher(self.after, held(self.counter)) or _is_higher(self.after, self.before)
        return is_raised and not reaches(Cap(self.counter["settled_usd"], self.counter["settled_tokens"]), self.after)

    @property
    def _is_held(self) -> bool:
        """Whether a closed limit keeps its cap, which may be held above the one that is meant."""
        return self.counter["crossed"] and not _is_higher(self.after, held(self.counter))

    def is_freed(self, taken: Decimal) -> bool:
        """Whether the limit was spent up until so much was taken off, and is open now."""
        was_spent_up = reaches(Cap(self.counter["settled_usd"] + taken), Cap(self.after.usd))
        return was_spent_up and not self.recapped[1]


def held(counter: Counter) -> Cap:
    """Tell the cap that a counter has."""
    return Cap(counter["cap_usd"], counter["cap_tokens"])


def promised(counter: Counter) -> Cap:
    """Sum up what is paid and what begun calls may still cost."""
    return Cap(counter["settled_usd"] + counter["reserved_usd"], counter["settled_tokens"] + counter["reserved_tokens"])


def meant(caps: Caps, counter: Counter) -> Cap:
    """Find the cap that a counter is to have."""
    return cap_of(caps, Scope(counter["scope"]), owners(counter))


def owners(counter: Counter) -> dict[Owner, str | None]:
    """Name those who may have a cap of a counter."""
    return {
        Owner.RUN: counter["subject"],
        Owner.TICKET: counter["subject"],
        Owner.AGENT: counter["agent_id"],
        Owner.LEVEL: counter["kind"],
        Owner.CATEGORY: counter["kind"],
        Owner.WORKSPACE: "",
    }


def owner_names(counters: Iterable[Counter]) -> set[str]:
    """Name all who may have a cap of one of these counters."""
    return {name for counter in counters for name in owners(counter).values() if name}


def _is_higher(cap: Cap, before: Cap) -> bool:
    return _above(cap.usd, before.usd) or _above(cap.tokens, before.tokens)


def _above(cap: Decimal | int | None, before: Decimal | int | None) -> bool:
    return before is not None and (cap is None or cap > before)
