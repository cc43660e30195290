"""Which routers each version of the API has. A version that differs puts its own router before the one it overrides."""

from types import ModuleType

from fastapi import APIRouter

from api.routes import events, session

NOUNS: tuple[ModuleType, ...] = (events, session)
"""Modules of `api/routes`; each has `routes`, with paths relative to `/api/v1`."""

VERSIONS: dict[str, tuple[APIRouter, ...]] = {
    "v1": tuple(noun.routes for noun in NOUNS),
    "v2": tuple(noun.routes for noun in NOUNS),
}
