"""Fixtures every folder may use; servers are started only by the folders that need them."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fixtures.logs", "tests.fixtures.servers"]
settings.register_profile("unhurried", deadline=None)  # how fast a thing is depends on what else the machine does
settings.load_profile("unhurried")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files are shared out, end with the quickest, and begin with those that may take longest."""
    if not hasattr(config, "workerinput"):
        return
    limits: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        if marker := item.get_closest_marker("timeout"):
            limits[item.path] = max(limits[item.path], marker.args[0])
    items.sort(key=lambda item: (-limits[item.path], item.path.parent.name in ("architecture", "unit")))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run every async test on asyncio, the loop the product runs on."""
    return "asyncio"
