"""Fixtures of the store's tests: a migrated PostgreSQL."""

from tests.fixtures.api import database_url, db, migrated_template, other_team, settings, team

__all__ = ["database_url", "db", "migrated_template", "other_team", "settings", "team"]
