"""Event ingest: `POST /events`, durable when answered, against a bare handler that commits one row per POST."""

import json

from benchmarks.http import load, request
from benchmarks.measure import Comparison, Goal, Meter, Numbers, alternate
from benchmarks.servers import BareApi, admin_key, pid_of, serving

GOAL = Goal("answers_per_second", "higher", 0.6)
FACT = {
    "type": "subsystem.report",
    "subject": {"kind": "subsystem", "id": "search"},
    "data": {"message": "the index was rebuilt", "documents": 12_345, "seconds": 6.7},
}


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    seconds, rounds = (2.0, 3) if quick else (6.0, 5)
    body = json.dumps(FACT).encode()
    async with serving("postgres", "temporal", "api") as stack, BareApi(stack.settings) as bare_api:
        posted = request("POST", "/api/v1/events", admin_key(stack.settings), body)
        bare_posted = request("POST", "/events", "", body)

        async def ours() -> Numbers:
            meter = Meter(api=stack.pid("api"), postgres=stack.pid("postgres"))
            found = await load(stack.settings.api_port, [posted], seconds, 202)
            return {**found, **meter.cpu(per=found["answers_per_second"] * meter.seconds / 1000)}

        async def bare() -> Numbers:
            meter = Meter(api=pid_of(bare_api), postgres=stack.pid("postgres"))
            found = await load(bare_api.settings.api_port, [bare_posted], seconds, 202)
            return {**found, **meter.cpu(per=found["answers_per_second"] * meter.seconds / 1000)}

        return [await alternate("event ingest", GOAL, ours, bare, rounds)]
