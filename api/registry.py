"""Which routers each version of the API has. A version that differs puts its own router before the one it overrides."""

from types import ModuleType

from fastapi import APIRouter

from api.routes import (
    candidates,
    capa,
    controls,
    decisions,
    events,
    metrics,
    missions,
    queue,
    repositories,
    session,
    stages,
    status,
)

NOUNS: tuple[ModuleType, ...] = (
    status,
    metrics,
    repositories,
    missions,
    controls,
    candidates,
    stages,
    queue,
    decisions,
    capa,
    events,
    session,
)
"""Modules of `api/routes`; each has `routes`, with paths relative to `/api/v1`."""

VERSIONS: dict[str, tuple[APIRouter, ...]] = {
    "v1": tuple(noun.routes for noun in NOUNS),
    "v2": tuple(noun.routes for noun in NOUNS),
}
