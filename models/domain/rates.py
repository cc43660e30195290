"""How many requests a key may make: the generic cell rate algorithm, one number of memory per key."""

from typing import NamedTuple

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
MAX_RATE = 1_000_000


class Allowance(NamedTuple):
    """What is left after a request. `wait` is 0 where it may pass, else how long until one may (nanoseconds)."""

    limit: int
    remaining: int
    reset: int
    wait: int


def spend(limit: int, window: int, full_at: int, now: int) -> tuple[int, Allowance]:
    """Take one request out of `limit` per `window`; when all will be there again, and what is left.

    `full_at` is what the request before gave, and 0 before the first one. What is refused costs nothing. All may be
    used at once; each comes back after its share of the window.
    """
    share = window // limit
    begins = full_at if full_at > now else now
    ends = begins + share
    over = ends - now - share * limit
    if over > 0:
        return full_at, Allowance(limit, 0, begins - now, over)
    return ends, Allowance(limit, -over // share, ends - now, 0)
