"""A question about a limit on a terminal: each thing once."""

from cli.client import Api
from cli.decisions import question
from tests.unit.test_cli_text import asked, shown

LIMIT = {"scope": "run", "subject": "run-1"}
CAPS = {"cap_usd": "0.50", "cap_tokens": None}
SPENT = {"settled_usd": "0.40", "settled_tokens": 7}
MORE = {"cap_usd": "1.00", "cap_tokens": None}


def test_a_limit_and_what_is_proposed() -> None:
    about = {"kind": "budget", "question": {**LIMIT, **CAPS, **SPENT, "proposed": MORE}, "binding": {**LIMIT, **MORE}}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked() | about))
    assert "0.50; proposed: 1.00" in printed
    counted = {
        name: printed.count(name) for name in ("cap usd", "proposed", "scope ", "run-1", "settled", "cap tokens")
    }
    assert counted == {"cap usd": 1, "proposed": 1, "scope ": 1, "run-1": 1, "settled": 0, "cap tokens": 0}


def test_a_limit_that_is_new() -> None:
    about = {"question": {**LIMIT, "cap_usd": None}, "binding": {**LIMIT, "cap_usd": "1.00", "run_id": "run-1"}}
    with Api("http://127.0.0.1:1", "key") as api:
        printed = shown(question(api, asked() | about))
    assert "none; proposed: 1.00" in printed
    assert "run id" in printed
