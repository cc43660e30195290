"""Paths of a change that hold secrets are seen by the policy, wherever in the change they stand."""

import pytest

from activities.code import MAX_FILES_SHOWN, MAX_PATHS
from models.contracts.pipeline import GovernanceAnswer
from models.domain.states import DecisionStatus
from models.tables.missions import Decision
from tests.fixtures.stage_hosts import Case, Shop

OF_OLD = """
    UPDATE stage SET result = result #- '{details,paths}' #- '{details,more_paths}'
    WHERE stage = 'branch_and_patch' RETURNING 1
"""


async def asked(case: Case) -> GovernanceAnswer:
    answer = (await case.settle()).answer
    assert answer is not None
    return answer


def files_named(count: int) -> dict[str, str]:
    return {f"a{number}.txt": "x\n" for number in range(count)}


@pytest.mark.parametrize(
    ("files", "patch"),
    [
        ({"prod.pem": "secret\n" * 9}, {"prod.pem": None, "prod.txt": "secret\n" * 9}),
        ({"zz/prod.pem": "secret\n"}, {"zz/prod.pem": None, **files_named(MAX_FILES_SHOWN)}),
        ({}, files_named(MAX_PATHS + 1)),
    ],
    ids=["renamed", "behind many", "more than are kept"],
)
async def test_a_path_that_holds_secrets_is_seen_wherever_it_stands(
    shop: Shop, files: dict[str, str], patch: dict[str, str | None]
) -> None:
    case = await (await shop.mission(files, patch)).patched()
    assert (await asked(case)).status is DecisionStatus.PENDING
    [decision] = await case.rows(Decision)
    assert decision.reasons == ["it touches a path that holds secrets"]


async def test_what_an_older_version_recorded_of_a_patch_is_judged_too(shop: Shop) -> None:
    case = await (await shop.mission({"a.pem": "x\n" * 9}, {"a.pem": None, "a.txt": "x\n" * 9})).patched()
    assert await case.db.alone(case.workspace_id, OF_OLD, {})
    await asked(case)
    [decision] = await case.rows(Decision)
    assert decision.reasons == ["it touches a path that holds secrets"]
