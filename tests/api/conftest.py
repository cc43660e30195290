"""Fixtures of the API's tests."""

from tests.fixtures.api import (
    address,
    api,
    app,
    client,
    database_url,
    db,
    migrated_template,
    other_team,
    settings,
    team,
)

__all__ = [
    "address",
    "api",
    "app",
    "client",
    "database_url",
    "db",
    "migrated_template",
    "other_team",
    "settings",
    "team",
]
