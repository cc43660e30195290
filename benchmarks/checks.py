"""What key, role and rate checks add to a route that does nothing else: the same route with them and without."""

from benchmarks.http import load, request
from benchmarks.measure import Comparison, Goal, Numbers, alternate
from benchmarks.servers import CheckedApi, admin_key, serving

GOAL = Goal("answers_per_second", "higher", 1 / 1.3)
"""At most 30 % more time for each answer."""


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    seconds, rounds = (2.0, 3) if quick else (5.0, 7)
    async with serving("postgres", "temporal", "api") as stack, CheckedApi(stack.settings) as server:
        port, key = server.settings.api_port, admin_key(stack.settings)

        async def ask(path: str, *, with_key: bool) -> Numbers:
            return await load(port, [request("GET", path, key if with_key else "")], seconds, 200)

        async def checked() -> Numbers:
            return await ask("/api/v1/checked", with_key=True)

        async def unchecked() -> Numbers:
            return await ask("/api/v1/unchecked", with_key=False)

        return [await alternate("key, role and rate checks", GOAL, checked, unchecked, rounds)]
