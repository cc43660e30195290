"""What may be spent: the four limits, whose cap each of them takes, and a run's states (requirements A.6, 4.11)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import Field

from models.domain.errors import Conflict, NotPermitted
from models.domain.policy import Level

MAX_TOKENS = 10**9
"""Of a call, in and out each. No model takes more than some tens of millions, and a report may tell of several calls;
the counters of tokens hold the sum of four thousand million such calls."""
MAX_TOKEN_CAP = 10**15
Amount = TypeVar("Amount", Decimal, int)
"""One part of a cap: dollars, or tokens."""

Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
TokenCap = Annotated[int, Field(ge=0, le=MAX_TOKEN_CAP)]


class Category(StrEnum):
    """What a ticket is about, as far as its budget goes."""

    CONTENT = "content"
    ENGINEERING = "engineering"
    DEFAULT = "default"


class Scope(StrEnum):
    """The four limits, in the order in which their counters are locked, and the one that was hit is named (C-07)."""

    RUN = "run"
    TICKET = "ticket"
    AGENT_DAY = "agent_day"
    WORKSPACE_MONTH = "workspace_month"


class Owner(StrEnum):
    """Whose cap it is."""

    RUN = "run"
    TICKET = "ticket"
    AGENT = "agent"
    LEVEL = "level"
    CATEGORY = "category"
    WORKSPACE = "workspace"


OWNERS: Mapping[Scope, tuple[Owner, ...]] = {
    Scope.RUN: (Owner.RUN, Owner.AGENT, Owner.LEVEL),
    Scope.TICKET: (Owner.TICKET, Owner.CATEGORY),
    Scope.AGENT_DAY: (Owner.AGENT, Owner.LEVEL),
    Scope.WORKSPACE_MONTH: (Owner.WORKSPACE,),
}
"""Who may have a cap of each limit; the first that has one wins."""

ASKED = frozenset({Scope.RUN, Scope.TICKET})
"""Limits that a human is asked to raise when they are hit; the others wait for their window to turn (V-29)."""


@dataclass(frozen=True)
class Cap:
    """The most that may be spent; None is no limit. `usd_of_level`: the dollars are whatever the agent's level has."""

    usd: Decimal | None = None
    tokens: int | None = None
    usd_of_level: bool = False


@dataclass(frozen=True)
class Key:
    """Names a cap: of which limit, and whose."""

    scope: Scope
    owner: Owner
    name: str = ""


def _usd(scope: Scope, owner: Owner, caps: Mapping[str, str]) -> dict[Key, Cap]:
    return {Key(scope, owner, name): Cap(Decimal(usd)) for name, usd in caps.items()}


MONTH = Key(Scope.WORKSPACE_MONTH, Owner.WORKSPACE)
DEFAULTS: Mapping[Key, Cap] = {
    **_usd(Scope.RUN, Owner.LEVEL, {Level.INTERN: "0.25", Level.SPECIALIST: "0.75", Level.LEAD: "1.50"}),
    **_usd(Scope.TICKET, Owner.CATEGORY, {Category.CONTENT: "6", Category.ENGINEERING: "8", Category.DEFAULT: "6"}),
    **_usd(Scope.AGENT_DAY, Owner.LEVEL, {Level.INTERN: "2", Level.SPECIALIST: "5", Level.LEAD: "12"}),
    MONTH: Cap(),
}
"""BUDG-01, BUDG-02, BUDG-03, V-28, BUDG-09: the workspace's has no default."""


def cap_of(caps: Mapping[Key, Cap], scope: Scope, owners: Mapping[Owner, str | None]) -> Cap:
    """Find the cap that a limit takes, by those who may have one; without any there is no limit."""
    named = (Key(scope, owner, name) for owner in OWNERS[scope] if (name := owners.get(owner)) is not None)
    found = [cap for key in named if (cap := caps.get(key)) is not None]
    if not found:
        return Cap()
    cap = found[0]
    return Cap(found[-1].usd, cap.tokens) if cap.usd_of_level else cap


def reaches(used: Cap, cap: Cap) -> bool:
    """Whether what is used leaves nothing of one part of a cap."""
    pairs = ((used.usd, cap.usd), (used.tokens, cap.tokens))
    return any(most is not None and amount is not None and amount >= most for amount, most in pairs)


LEAST = Cap(Decimal("0.25"), 100_000)
"""Proposed where there is nothing to double: a cap of nothing, under which no run begins, can be raised, too."""


def raised(cap: Cap, promised: Cap, wanted: Cap) -> Cap:
    """Propose the next cap where one was hit: twice the cap, or what went beyond it, and room for what is wanted.

    The part that was not hit stays as it is. Where none is by now, since what hit it was given back, both are raised.
    """
    usd = (cap.usd, promised.usd or Decimal(0), wanted.usd or Decimal(0))
    tokens = (cap.tokens, promised.tokens or 0, wanted.tokens or 0)
    neither = not _is_hit(*usd) and not _is_hit(*tokens)
    return Cap(
        _more(*usd, LEAST.usd) if neither or _is_hit(*usd) else cap.usd,
        _more(*tokens, LEAST.tokens) if neither or _is_hit(*tokens) else cap.tokens,
    )


def proposed(asked: Cap, bound: Cap) -> Cap:
    """Find the part that a question is to raise; None where it leaves one as it is."""
    return Cap(None if bound.usd == asked.usd else bound.usd, None if bound.tokens == asked.tokens else bound.tokens)


def not_below(cap: Cap, least: Cap) -> Cap:
    """Raise each part of a cap to another one's, where it is lower; what has no limit keeps none."""
    return Cap(_higher(cap.usd, least.usd), _higher(cap.tokens, least.tokens))


def _is_hit(cap: Amount | None, used: Amount, wanted: Amount) -> bool:
    return cap is not None and (used >= cap or used + wanted > cap)


def _more(cap: Amount | None, used: Amount, wanted: Amount, least: Amount | None) -> Amount | None:
    return None if cap is None else max(2 * max(cap, used), used + wanted) or least


def _higher(cap: Amount | None, least: Amount | None) -> Amount | None:
    return cap if cap is None or least is None else max(cap, least)


COMPUTE_SECONDS = 600
"""Of a host: what a mission reserves before it begins. Most take less, and what one takes beyond is an overrun."""


class RunStatus(StrEnum):
    """How an execution stands; it runs while it has none of these (ACTIVITY-02)."""

    SUCCESS = "success"
    FAILED = "failed"
    BLOCKED = "blocked"


def require_level(registered: Level, wanted: Level | None) -> None:
    """Refuse to trust an agent further than it is registered with.

    Raises:
        NotPermitted: `level_too_high`.
    """
    if wanted is not None and list(Level).index(wanted) > list(Level).index(registered):
        raise NotPermitted(
            "level_too_high", f"the agent's level is {registered.value}, not {wanted.value}: leave `level` out"
        )


def category_of(asked: Category | None, known: Category | None, *, may_say: bool) -> Category | None:
    """Find the category of a run's ticket, which stays what the first who says one makes it; None where none is known.

    A ticket of which nobody has said any is of the default one.

    The ticket's cap follows from it, and so no agent says it first, no more than its own level.

    Raises:
        Conflict: `category_differs`.
        NotPermitted: `own_runs_only`.
    """
    if asked is None or asked is known:
        return known
    if known not in (None, Category.DEFAULT):
        raise category_differs(known)
    if not may_say:
        told = "an agent does not choose its ticket's category: leave it out, or let a service start a run with it"
        raise NotPermitted("own_runs_only", told)
    return asked


def category_differs(known: Category) -> Conflict:
    """Refuse another category than a ticket has."""
    hint = "leave `category` out; an admin may give the ticket a cap of its own (`PUT /budgets`)"
    return Conflict("category_differs", f"the ticket's category is {known.value}: {hint}", category=known.value)


MAX_RESERVATIONS = 1_000
"""Open at a time in one run: far more calls than an agent makes at once, so the others were forgotten."""
MAX_OPEN_RUNS = 1_000
"""Of one agent, or of one principal without one: whoever has more has forgotten to end them."""
LOOP = "loop"
"""What blocks a run that repeats a failing call, where a scope's name blocks one that was too expensive."""
MAX_SAME_RETRIES = 3
"""Retries of a tool with the same error; the next one is a loop (LOOP-04). The first call is no retry."""
SAME_ERROR_CHARS = 200


def is_loop(errors: list[str | None]) -> bool:
    """Whether a tool's latest calls, the newest first, are too many failures in a row of the same error (V-35)."""
    alike = errors[: MAX_SAME_RETRIES + 2]
    said = {error and error[:SAME_ERROR_CHARS] for error in alike}
    return len(alike) == MAX_SAME_RETRIES + 2 and len(said) == 1 and None not in said
