"""A registered path that leads to another repository by the time it is used: nothing is merged there."""

from contextlib import suppress
from pathlib import Path

import pytest

from models.domain.errors import InvalidInput
from tests.fixtures.git_repos import make_repo
from tests.fixtures.product import FILES
from tests.fixtures.stage_hosts import Shop, do, shop

__all__ = ["shop"]


def put_a_link(path: Path, to: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to(to)


@pytest.mark.parametrize("part", ["", ".git"], ids=["the path", "its .git"])
async def test_it_is_not_used(shop: Shop, part: str) -> None:
    case = await (await shop.mission()).patched()
    theirs = make_repo(shop.root / "repos" / "payroll", FILES)
    before = theirs.sha("main")
    put_a_link(case.repo.path / part, theirs.path / part)
    with pytest.raises(InvalidInput):
        await case.job()
    with suppress(InvalidInput):
        assert not (await do(case.host.merging.merge, case.merge())).merge_sha
    await case.host.benches.close(case.workspace_id, case.mission_id)
    assert theirs.sha("main") == before
