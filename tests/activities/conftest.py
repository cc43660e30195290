"""Fixtures of the tests of stage activities."""

from tests.fixtures.api import database_url, migrated_template
from tests.fixtures.merging import bare, bench, checked_out
from tests.fixtures.reconcilers import reconciler
from tests.fixtures.stage_hosts import shop

__all__ = ["bare", "bench", "checked_out", "database_url", "migrated_template", "reconciler", "shop"]
