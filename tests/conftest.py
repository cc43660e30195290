"""Fixtures every folder may use; servers are started only by the folders that need them."""

import pytest

pytest_plugins = ["tests.fixtures.logs", "tests.fixtures.servers"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run every async test on asyncio, the loop the product runs on."""
    return "asyncio"
