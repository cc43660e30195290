"""Which routers each version of the API has. A version that differs puts its own router before the one it overrides."""

from types import ModuleType

from fastapi import APIRouter

from api.routes import (
    activity,
    agents,
    alerts,
    audit,
    budgets,
    candidates,
    capa,
    controls,
    decisions,
    events,
    keys,
    memory,
    metrics,
    missions,
    policy,
    principals,
    queue,
    repositories,
    runs,
    session,
    stages,
    status,
    tool_calls,
    trust,
    workspaces,
)

NOUNS: tuple[ModuleType, ...] = (
    events,
    queue,
    status,
    metrics,
    repositories,
    missions,
    controls,
    candidates,
    stages,
    decisions,
    policy,
    capa,
    memory,
    keys,
    runs,
    tool_calls,
    budgets,
    alerts,
    session,
    principals,
    workspaces,
    agents,
    audit,
    activity,
    trust,
)
"""Modules of `api/routes`; each has `routes`, with paths relative to `/api/v1`. Requests are matched in this order."""

VERSIONS: dict[str, tuple[APIRouter, ...]] = {
    "v1": tuple(noun.routes for noun in NOUNS),
    "v2": tuple(noun.routes for noun in NOUNS),
}
