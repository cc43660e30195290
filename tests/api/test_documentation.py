"""`docs/api.md` lists what there is: each listed route exists, and each route is listed."""

import re
from pathlib import Path

from api.registry import VERSIONS
from api.routes import system
from api.routing import Route

TEXT = (Path(__file__).parents[2] / "docs/api.md").read_text()
ROW = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \|", re.MULTILINE)
WITH_CALLERS = re.compile(rf"{ROW.pattern} ([^|]+) \|[^|\n]+\|[^|\n]*\|$", re.MULTILINE)


def existing() -> list[tuple[str, str]]:
    """Method and path of every route; those of `/api/v1` relative to it, as the document writes them."""
    routers = (*VERSIONS["v1"], system.routes)
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    return sorted((method, route.path) for route in routes for method in route.methods or ())


def test_documents_every_route_and_no_other() -> None:
    assert sorted(ROW.findall(TEXT)) == existing()


def test_names_the_callers_that_routes_declare() -> None:
    """An agent or a service is named exactly where its key is admitted."""
    rows = {(method, path): callers for method, path, callers in WITH_CALLERS.findall(TEXT)}
    for router in VERSIONS["v1"]:
        for route in router.routes:
            if not isinstance(route, Route) or route.caller is None:
                continue
            for method in route.methods or ():
                named = rows[method, route.path]
                admitted = route.caller.callers
                assert bool(re.search(r"\bA\b|\bR\b", named)) == admitted.agents, (method, route.path)
                assert ("S" in named) == admitted.services, (method, route.path)
