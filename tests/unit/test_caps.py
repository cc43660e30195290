"""What another cap does to a counter, whose it may be, and what is told of a limit that was met."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.budgets import DEFAULTS, Cap, Key, Owner, Scope
from models.domain.caps import Change, Counter, meant, owner_names
from models.domain.limits import Hit, as_told, exceeded, from_told
from models.domain.money import SCALE

money = st.decimals(0, 10**6, places=SCALE)


def counter(cap: Cap, settled: str | Decimal = "0", reserved: str | Decimal = "0", **more: Any) -> Counter:
    """What `settled` and `reserved` dollars leave of a cap."""
    spent = {"settled_usd": Decimal(settled), "reserved_usd": Decimal(reserved), "settled_tokens": 0}
    return {"cap_usd": cap.usd, "cap_tokens": cap.tokens, **spent, "reserved_tokens": 0, "crossed": True} | more


class TestAnotherCap:
    @given(old=st.none() | money, new=st.none() | money, settled=money, reserved=money, crossed=st.booleans())
    def test_it_keeps_promises(
        self, old: Decimal | None, new: Decimal | None, settled: Decimal, reserved: Decimal, crossed: bool
    ) -> None:
        spent = counter(Cap(old), settled, reserved, crossed=crossed)
        cap, is_crossed = Change(spent, Cap(old), Cap(new)).recapped
        assert cap.usd is None or cap.usd >= settled + reserved
        if new is not None and new < settled + reserved:
            assert is_crossed
        elif crossed:
            assert is_crossed is not (old is not None and (new is None or (new > old and new > settled)))
        else:
            assert not is_crossed

    def test_more_of_one_part_opens_nothing_that_the_other_closed(self) -> None:
        before = Cap(Decimal("0.25"), 100)
        spent = counter(before, "0.25", settled_tokens=10)
        for after, is_crossed in (
            (Cap(before.usd, 200), True),
            (Cap(before.usd, None), True),
            (Cap(Decimal("0.3"), 100), False),
        ):
            assert Change(spent, before, after).recapped == (after, is_crossed)

    def test_a_cap_above_the_one_that_was_meant_opens_what_had_to_be_given_more(self) -> None:
        spent = counter(Cap(Decimal(3)), "1", "2")
        assert Change(spent, Cap(Decimal(2)), Cap(Decimal(3))).recapped == (Cap(Decimal(3)), False)
        assert Change(spent, Cap(Decimal(3)), Cap(Decimal(3))).recapped == (Cap(Decimal(3)), True)

    @pytest.mark.parametrize(
        ("after", "crossed", "is_one"), [("2", True, False), ("4", True, True), ("2", False, True), ("3", False, False)]
    )
    def test_only_a_closed_limit_keeps_more_than_is_meant(self, after: str, crossed: bool, is_one: bool) -> None:
        change = Change(counter(Cap(Decimal(3)), "1", crossed=crossed), Cap(Decimal(after)), Cap(Decimal(after)))
        assert change.is_one is is_one

    @pytest.mark.parametrize(
        ("settled", "taken", "is_freed"), [("0.7", "0.3", True), ("0.7", "0.2", False), ("1", "0.5", False)]
    )
    def test_what_is_taken_off_opens_what_was_spent_up(self, settled: str, taken: str, is_freed: bool) -> None:
        cap = Cap(Decimal(1))
        assert Change(counter(cap, settled), Cap(Decimal(0), 0), cap).is_freed(Decimal(taken)) is is_freed


def test_a_counter_has_the_cap_of_the_nearest_owner() -> None:
    day = {"scope": "agent_day", "subject": "bot", "agent_id": "bot", "kind": "lead"}
    assert meant(DEFAULTS, day) == Cap(Decimal(12))
    own = Key(Scope.AGENT_DAY, Owner.AGENT, "bot")
    assert meant({**DEFAULTS, own: Cap(Decimal(1))}, day) == Cap(Decimal(1))
    assert owner_names([day, {**day, "kind": None}]) == {"bot", "lead"}


class TestALimitThatWasMet:
    def test_it_is_told_in_plain_words_and_exact_dollars(self) -> None:
        place = {"workspace_id": "w", "scope": "workspace_month", "subject": "", "period": "2026-05"}
        hit = Hit("run_1", {**counter(Cap(Decimal("1.50"), None), "1E-9"), **place}, Cap(Decimal(2), 5))
        assert hit.about.id == "workspace_month/w"
        assert not hit.is_asked
        assert hit.told == {
            **{"scope": "workspace_month", "subject": "", "period": "2026-05", "run_id": "run_1"},
            **{"cap_usd": "1.50", "cap_tokens": None, "settled_usd": "0.000000001", "settled_tokens": 0},
            **{"asked_usd": "2", "asked_tokens": 5},
        }
        assert hit.proposed == {"cap_usd": "3.00", "cap_tokens": None}
        refusal = exceeded(hit.counter)
        assert refusal.message.startswith("the workspace's limit for 2026-05 of 1.5 USD is crossed; wait until")
        assert refusal.details == {"limit": "workspace_month", "subject": "", "period": "2026-05"}

    @given(usd=st.none() | money, tokens=st.none() | st.integers(0, 10**15))
    def test_a_cap_that_was_told_is_read_as_it_was(self, usd: Decimal | None, tokens: int | None) -> None:
        assert from_told(as_told(Cap(usd, tokens))) == Cap(usd, tokens)
