"""`policy explain` knows the facts that an act may have, and no other."""

from typing import Any

import httpx2
import pytest

from models.domain.errors import InvalidInput
from models.domain.policy import parse_policy
from models.domain.policy_names import FACTS, require_known
from tests.fixtures.missions import refusal


def asks(*facts: str) -> dict[str, Any]:
    return {"action": "mission.merge", "as": {"kind": "service"}, "facts": dict.fromkeys(facts, True)}


async def test_an_unknown_fact_is_refused_and_the_known_ones_are_named(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/v1/policy/explain", json=asks("judges", "overide"))
    assert refusal(answer) == (422, "unknown_fact")
    told = answer.json()["error"]["message"]
    assert [name for name in ("overide", *FACTS) if name not in told] == []


@pytest.mark.parametrize("fact", sorted(FACTS))
async def test_what_the_product_says_is_known(api: httpx2.AsyncClient, fact: str) -> None:
    assert (await api.post("/api/v1/policy/explain", json=asks(fact))).status_code == 200


def test_so_is_what_only_a_kept_rule_names() -> None:
    rule = "{rule: odd, because: it is odd, when: {fact: [odd]}, ask: {people: 1}}"
    require_known(["odd"], parse_policy(f"rules: [{rule}]"))
    with pytest.raises(InvalidInput, match="no fact is called `even`"):
        require_known(["even"], parse_policy(f"rules: [{rule}]"))
