"""Fixtures of the workflows' tests."""

from tests.fixtures.api import database_url, migrated_template
from tests.fixtures.workers import world

__all__ = ["database_url", "migrated_template", "world"]
