"""The audit view of a mission that really ran: commits and configuration, what was found, signatures (AUD-09, -10)."""

import json
from typing import Any

import httpx2
import pytest

from activities.workbench.signing import ServiceKey
from models.domain import checkpoints
from models.domain.audit import leaf_of
from models.domain.checkpoints import raw_key
from models.domain.merkle import root_from
from tests.fixtures.product import Product
from tests.fixtures.waiting import eventually
from tests.fixtures.watching import watching

pytestmark = pytest.mark.timeout(180)


async def asked(product: Product, path: str) -> httpx2.Response:
    """Follow a link, or ask for a path below the API's own."""
    answer = await product.api.get(path.removeprefix("/api/v1"))
    assert answer.status_code == 200, answer.text
    return answer


async def data(product: Product, path: str) -> Any:
    return (await asked(product, path)).json()["data"]


async def audited(product: Product, mission: str) -> list[dict[str, Any]]:
    """Read all rows of a mission that has ended, the oldest first."""
    assert (await product.ended(mission))["outcome"] == "merged"
    rows: list[dict[str, Any]] = (await data(product, f"/audit?subject={mission}&sort=created_at&limit=200"))["items"]
    return rows


async def test_it_says_at_which_commit_by_which_configuration_and_what_was_found(product: Product) -> None:
    repo = product.repo()
    mission = await product.file(repo, execute=False)
    await product.execute(mission)
    rows = await audited(product, mission)
    known = next(at for at, row in enumerate(rows) if row["action"] == "stage.passed")
    pipeline = [row for row in rows[known:] if row["action"].startswith("stage.")]
    assert {row["content"]["stage"] for row in pipeline if row["action"] != "stage.started"} >= {
        *("fetch_context", "pull_code", "branch_and_patch", "run_tests", "publish_diagnostics", "collect_metrics"),
        *("governance", "merge", "observe", "resolve"),
    }
    lacking = [row["content"]["stage"] for row in pipeline if not (row["git_sha"] and row["config_hash"])]
    assert lacking == []
    context = (await data(product, f"/missions/{mission}"))["context"]
    assert {row["config_hash"] for row in pipeline} == {context["config_hash"]}
    assert pipeline[0]["git_sha"] == context["git_sha"]
    await leads_to_what_was_found(product, rows)


async def leads_to_what_was_found(product: Product, rows: list[dict[str, Any]]) -> None:
    links: dict[str, str] = {}
    for row in rows:
        links |= row["links"]
    found = {name: await asked(product, links[name]) for name in ("test_results", "metrics", "diagnostics")}
    assert "calc" in found["test_results"].text
    assert set(found["metrics"].json()) == {"targets", "samples", "unmet"}
    assert "run_tests" in [stage["stage"] for stage in found["diagnostics"].json()["stages"]]
    evidence = await data(product, links["evidence"])
    assert {"calc::adds", "calc::stands"} <= {test["name"] for test in evidence["test_results"]["items"]}


async def test_every_event_of_it_is_what_the_schema_says(product: Product) -> None:
    mission = await product.file(product.repo())
    told = [row["action"] for row in await audited(product, mission)]
    key = product.stack.settings.key_file.read_text().strip()
    async with watching(product.stack.settings.api_url, key, after="0-0-0", subject=mission) as watch:
        assert [event.event for event in await watch.take(len(told))] == told


async def test_each_change_is_signed(product: Product) -> None:
    """Records of stages carry signatures of their own; every other change is under the next checkpoint's (CRYP-02)."""
    mission = await product.file(product.repo())
    rows = await audited(product, mission)
    public = [raw_key(ServiceKey.load_or_create(product.stack.settings.signing_key).public_openssh)]
    package = await data(product, f"/missions/{mission}")
    assert len(package["crypto_signatures"]) == len(product.stages(mission))
    for signed in package["crypto_signatures"]:
        assert all(signed[name] for name in ("signature", "key_id", "at")), json.dumps(signed)
    for row in rows:

        async def proved(path: str = row["links"]["proof"]) -> dict[str, Any] | None:
            answer = await product.api.get(path.removeprefix("/api/v1"))
            found: dict[str, Any] | None = answer.json()["data"] if answer.status_code == 200 else None
            return found

        proof = await eventually(proved, 20)
        signed = checkpoints.verify(proof["checkpoint"], public)
        hashes = [bytes.fromhex(found) for found in proof["hashes"]]
        assert root_from(leaf_of(proof["row"]), proof["leaf_index"], signed.size, hashes) == signed.root
        assert proof["row"]["digest"] == row["digest"]
        assert proof["key_id"]
        assert proof["signed_at"]
