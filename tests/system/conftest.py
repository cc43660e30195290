"""Fixtures of the tests of everything as processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.product import Product, running


@pytest.fixture(scope="module")
async def product(server_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[Product]:
    """The product, for the tests of one file, with the settings that the file gives it as `PRODUCT`."""
    root = server_dir / request.path.stem
    root.mkdir()
    async with running(root, **getattr(request.module, "PRODUCT", {})) as product:
        yield product
