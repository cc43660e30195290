"""Caps and prices: whose cap holds, what a call costs on which day, and what is wrong in which line."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.configuration import load_prices
from models.domain.budgets import DEFAULTS, LEAST, Cap, Key, Owner, Scope, cap_of, is_loop, not_below, proposed, raised
from models.domain.errors import InvalidInput, Unavailable
from models.domain.money import SCALE
from models.domain.prices import Usage, charge, parse_prices
from models.settings import Settings

DAY = date(2026, 5, 1)
LIST = parse_prices(
    b"""
models:
  old: [{input: 1, output: 2, until: 2026-05-01}, {input: 3, output: 4.125, since: 2026-05-01}]
  dear: [{input: 10, output: 100}]
  gone: [{input: 1000, output: 1000, until: 2020-01-01}]
compute: [{usd_per_second: 0.00002}]
"""
)
money = st.decimals(0, 10**6, places=SCALE)


class TestCaps:
    def test_the_nearest_owner_wins(self) -> None:
        owners = {Owner.RUN: "r", Owner.AGENT: "bot", Owner.LEVEL: "intern"}
        caps = dict(DEFAULTS)
        assert cap_of(caps, Scope.RUN, owners) == Cap(Decimal("0.25"))
        caps[Key(Scope.RUN, Owner.AGENT, "bot")] = Cap(Decimal(1))
        assert cap_of(caps, Scope.RUN, owners) == Cap(Decimal(1))
        assert cap_of(caps, Scope.AGENT_DAY, owners) == Cap(Decimal(2)), "of another limit"
        caps[Key(Scope.RUN, Owner.RUN, "r")] = Cap()
        assert cap_of(caps, Scope.RUN, owners) == Cap()
        assert cap_of(caps, Scope.TICKET, {Owner.TICKET: None}) == Cap()

    @given(cap=money, promised=money, wanted=money)
    def test_a_raise_is_enough(self, cap: Decimal, promised: Decimal, wanted: Decimal) -> None:
        more = raised(Cap(cap), Cap(promised, 5), Cap(wanted, 7))
        assert more.usd is not None
        assert more.tokens is None
        assert more.usd >= max(2 * cap, promised + wanted)
        assert more.usd > promised

    def test_a_raise_is_of_the_part_that_was_hit(self) -> None:
        cap, spent = Cap(Decimal(1), 100), Cap(Decimal("0.9"), 10)
        assert raised(cap, spent, Cap(Decimal("0.2"), 5)) == Cap(Decimal(2), 100)
        assert raised(cap, spent, Cap(Decimal("0.1"), 95)) == Cap(Decimal(1), 200)
        assert raised(cap, Cap(Decimal(1), 100), Cap()) == Cap(Decimal(2), 200)
        assert raised(cap, spent, Cap()) == Cap(Decimal(2), 200), "what hit it was given back"
        assert raised(Cap(Decimal(0), 0), Cap(), Cap()) == LEAST

    def test_what_is_approved_takes_back_nothing_that_was_set_meanwhile(self) -> None:
        more = proposed(Cap(Decimal(1), None), Cap(Decimal(2), None))
        assert more == proposed(Cap(Decimal(1), 100), Cap(Decimal(2), 100)) == Cap(Decimal(2), None)
        assert not_below(Cap(Decimal(1), 7), more) == Cap(Decimal(2), 7)
        assert not_below(Cap(Decimal(5), 7), more) == Cap(Decimal(5), 7)
        assert not_below(Cap(None, 7), more) == Cap(None, 7)


class TestPrices:
    @pytest.mark.parametrize(
        ("usage", "day", "usd", "unpriced"),
        [
            (Usage(model="old", tokens_in=1_000_000, tokens_out=1_000_000), date(2026, 4, 30), "3", False),
            (Usage(model="old", tokens_in=1_000_000, tokens_out=1_000_000), DAY, "7.125", False),
            (Usage(model="old", tokens_in=1, tokens_out=1), DAY, "0.000007125", False),
            (Usage(model="old", tokens_in=5, usd=Decimal("0.5")), DAY, "0.5", False),
            (Usage(model="new", tokens_out=1000), DAY, "0.1", True),
            (Usage(model="gone", tokens_out=1000), DAY, "0.1", True),
            (Usage(tokens_in=1000), DAY, "0.01", True),
            (Usage(), DAY, "0", False),
        ],
    )
    def test_a_call(self, usage: Usage, day: date, usd: str, unpriced: bool) -> None:
        found = charge(LIST, usage, day)
        assert (found.usd, found.unpriced) == (Decimal(usd), unpriced)

    @given(tokens_in=st.integers(0, 10**9), tokens_out=st.integers(0, 10**9))
    def test_nothing_is_rounded(self, tokens_in: int, tokens_out: int) -> None:
        found = charge(LIST, Usage(model="old", tokens_in=tokens_in, tokens_out=tokens_out), DAY).usd
        assert found * 10**SCALE == 3000 * tokens_in + 4125 * tokens_out

    def test_without_any_price_tokens_are_not_free(self) -> None:
        for empty in (parse_prices(b""), parse_prices(b"models: {a: [{input: 1, output: 2, until: 2020-01-01}]}\n")):
            with pytest.raises(Unavailable, match="no model has a price on"):
                charge(empty, Usage(model="a", tokens_in=1), DAY)
            assert charge(empty, Usage(model="a", tokens_in=1, usd=Decimal(1)), DAY).usd == 1

    def test_a_second(self) -> None:
        assert LIST.of_compute(DAY) == Decimal("0.00002")
        assert parse_prices(b"").of_compute(DAY) is None

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "models:\n  a:\n    - {input: 1, output: 2, until: 2026-01-01}\n    - input: 1\n      output: -3\n",
                "line 5",
            ),
            ("models:\n  a:\n    - {input: 1, output: 2, sinse: 2026-01-01}\n", "line 3.*did you mean `since`"),
            ("models:\n  a:\n    - {input: .nan, output: 2}\n", "line 3.*finite"),
            ("models:\n  a:\n    - {input: 0.0001, output: 2}\n", "line 3.*3 decimal"),
            ("models:\n  a:\n    - {input: 1, output: 2}\n    - {input: 1, output: 2}\n", "line 2.*same day"),
            ("models:\n  a:\n    - {input: 1, output: 2, since: 2026-02-01, until: 2026-01-01}\n", "line 3.*before"),
            ("compute:\n  - usd_per_second: much\n", "line 2"),
            ("model: {}\n", "line 1"),
            ("models: [1\n", "line 2"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, text: str, said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            parse_prices(text.encode())

    def test_the_shipped_list_is_one(self) -> None:
        assert load_prices(Settings().config_dir).models

    def test_an_edited_file_is_read_anew(self, tmp_path: Path) -> None:
        assert load_prices(tmp_path).models == {}
        path = tmp_path / "prices.yaml"
        path.write_text("models:\n  a: [{input: 1, output: 1}]\n")
        assert set(load_prices(tmp_path).models) == {"a"}
        path.write_text("models:\n  bb: [{input: 1, output: 1}]\n")
        assert set(load_prices(tmp_path).models) == {"bb"}
        path.write_text("models: 3\n")
        with pytest.raises(Unavailable, match="line 1"):
            load_prices(tmp_path)


@pytest.mark.parametrize(
    ("errors", "loop"),
    [
        (["E"] * 5, True),
        (["E"] * 4, False),
        (["E"] * 4 + [None], False),
        (["E", "E", "F", "E", "E"], False),
        (["x" * 200 + str(number) for number in range(5)], True),
        ([None] * 5, False),
        ([], False),
    ],
)
def test_the_fourth_retry_is_a_loop(errors: list[str | None], loop: bool) -> None:
    assert is_loop(errors) is loop
