"""Fixtures of the tests of stage activities."""

from tests.fixtures.api import database_url, migrated_template
from tests.fixtures.stage_hosts import shop

__all__ = ["database_url", "migrated_template", "shop"]
