"""What a call of a model and a second of our compute cost, by the day (V-30)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from models.domain.budgets import Tokens
from models.domain.errors import Unavailable
from models.domain.money import Kept
from models.domain.plain_yaml import read_model

MILLION = 1_000_000
NAME = "prices"


class Valid(BaseModel):
    """Holds from one day to the day before another; without a day, for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: date | None = None
    until: date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Valid":
        if self.since and self.until and self.since >= self.until:
            raise ValueError("`since` must be before `until`")
        return self

    def holds(self, day: date) -> bool:
        """Whether it holds on that day."""
        return (self.since is None or self.since <= day) and (self.until is None or day < self.until)


PerMillion = Annotated[Decimal, Field(ge=0, max_digits=9, decimal_places=3, allow_inf_nan=False)]
PerSecond = Annotated[Decimal, Field(ge=0, max_digits=9, decimal_places=6, allow_inf_nan=False)]
"""So few decimals that neither a token nor a millisecond is ever rounded."""


class ModelPrice(Valid):
    """USD per million tokens that go in, and that come out."""

    input: PerMillion
    output: PerMillion

    def of(self, tokens_in: int, tokens_out: int) -> Decimal:
        """The price of a call."""
        return (self.input * tokens_in + self.output * tokens_out) / MILLION


class ComputePrice(Valid):
    """USD per second in which a host works on a mission."""

    usd_per_second: PerSecond


Price = TypeVar("Price", bound=Valid)


def _no_overlap(prices: tuple[Price, ...]) -> tuple[Price, ...]:
    ordered = sorted(prices, key=lambda price: price.since or date.min)
    for before, after in pairwise(ordered):
        if before.until is None or after.since is None or before.until > after.since:
            raise ValueError("two prices hold on the same day: end one with `until` where the next has its `since`")
    return prices


class Prices(BaseModel):
    """The price list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Annotated[tuple[ModelPrice, ...], AfterValidator(_no_overlap)]] = {}
    compute: Annotated[tuple[ComputePrice, ...], AfterValidator(_no_overlap)] = ()

    def of_compute(self, day: date) -> Decimal | None:
        """A second's price on that day; None where it has none."""
        price = _on(self.compute, day)
        return price.usd_per_second if price else None


class Usage(BaseModel):
    """What a call takes, and what it costs where its caller knows."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    tokens_in: Tokens = 0
    tokens_out: Tokens = 0
    calls: int = 1
    usd: Kept | None = None

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Charge:
    """A call with its price; `unpriced` where the list has none, and the dearest stands in for it."""

    usage: Usage
    usd: Decimal
    unpriced: bool = False


def charge(prices: Prices, usage: Usage, day: date) -> Charge:
    """Price a call: what is reported wins, else the list's price of that day, else the dearest one of that day.

    So a model that nobody priced cannot spend more than a cap allows; an adjustment corrects what it was charged.

    Raises:
        Unavailable: `no_prices`: with no price at all, tokens would be free.
    """
    if usage.usd is not None:
        return Charge(usage, usage.usd)
    own = _on(prices.models.get(usage.model or "", ()), day)
    if own is not None or not usage.tokens:
        return Charge(usage, own.of(usage.tokens_in, usage.tokens_out) if own else Decimal(0))
    known = [price for listed in prices.models.values() if (price := _on(listed, day))]
    if not known:
        raise Unavailable("no_prices", f"no model has a price on {day}: put one into config/prices.yaml, or tell `usd`")
    return Charge(usage, max(price.of(usage.tokens_in, usage.tokens_out) for price in known), unpriced=True)


def parse_prices(data: bytes) -> Prices:
    """Read a price list.

    Raises:
        InvalidInput: `prices_invalid`, naming the line and what is wrong with it.
    """
    return read_model(data, NAME, "prices_invalid", Prices)


def _on(prices: Iterable[Price], day: date) -> Price | None:
    return next((price for price in prices if price.holds(day)), None)
