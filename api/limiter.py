"""How many requests and streams a key, or an address without one, may have: counted here, never in the database."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from starlette.requests import HTTPConnection

from models.domain.errors import RateLimited, Unauthenticated
from models.domain.principals import Kind, Principal
from models.domain.rates import HOUR, MINUTE, SECOND, Allowance, spend
from models.settings import Settings

MAX_COUNTED = 100_000
"""Keys and addresses that have not all of their requests: some 15 MB, however many addresses somebody comes from."""
REGISTRATIONS_PER_HOUR = 5
"""Of one address: a host has few agents, and an admin reads each (requirements 5.2)."""


class Limiter:
    """What each key and address has used of late. A restart forgets it, and another process counts for itself."""

    def __init__(self, settings: Settings) -> None:
        self._of_kind = {
            Kind.HUMAN: settings.human_requests_per_minute,
            Kind.AGENT: settings.agent_requests_per_minute,
            Kind.SERVICE: settings.service_requests_per_minute,
        }
        self._anonymous = settings.anonymous_requests_per_minute
        self._full_at: dict[str, int] = {}
        self._streams, self._noticed = settings.streams_per_key, math.ceil(settings.sse_heartbeat_seconds)
        self._open: Counter[str] = Counter()

    def usual(self, kind: Kind) -> int:
        """How many requests a minute a key has that no number was given to."""
        return self._of_kind[kind]

    def count(self, connection: HTTPConnection, principal: Principal) -> None:
        """Count a request of a key, with those of the keys that it was rotated from.

        Raises:
            RateLimited: it has none left for now.
        """
        limit = principal.rate or self.usual(principal.kind)
        self._spend(connection, principal.lineage, limit, MINUTE)

    def count_address(self, connection: HTTPConnection) -> None:
        """Count a request without a good key."""
        self._spend(connection, _address(connection), self._anonymous, MINUTE)

    @contextmanager
    def guess(self, connection: HTTPConnection) -> Iterator[bool]:
        """Count a request until its key turns out to be good; whether its address had any left for that.

        Raises:
            RateLimited: it had none, in place of `Unauthenticated`.
        """
        name = _address(connection)
        left, is_bad = self._take(name, self._anonymous, MINUTE), False
        try:
            yield not left.wait
        except Unauthenticated as error:
            connection.state.allowance, is_bad = left, True
            if left.wait:
                raise _refusal(left, MINUTE) from error
            raise
        finally:
            if not (is_bad or left.wait) and name in self._full_at:
                self._full_at[name] -= MINUTE // self._anonymous

    def count_registration(self, connection: HTTPConnection) -> None:
        """Count a stranger's registration of an agent."""
        self._spend(connection, f"register {_address(connection)}", REGISTRATIONS_PER_HOUR, HOUR)

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """Count a stream of a key, with those of the keys that it was rotated from, for as long as it is open.

        Raises:
            RateLimited: `too_many_streams`. That a client is gone is noticed with the next heartbeat at the latest.
        """
        if self._open[principal.lineage] >= self._streams:
            told = f"{self._streams} streams of this key are open: close one, or see more in one by its filters"
            raise RateLimited("too_many_streams", told, limit=self._streams, wait_seconds=self._noticed)
        self._open[principal.lineage] += 1
        try:
            yield
        finally:
            self._open[principal.lineage] -= 1
            if not self._open[principal.lineage]:
                del self._open[principal.lineage]

    def _spend(self, connection: HTTPConnection, name: str, limit: int, window: int) -> None:
        """Take one; what is left goes into the headers of the answer, whatever that will be."""
        left = self._take(name, limit, window)
        connection.state.allowance = left
        if left.wait:
            raise _refusal(left, window)

    def _take(self, name: str, limit: int, window: int) -> Allowance:
        now = time.monotonic_ns()
        self._full_at[name], left = spend(limit, window, self._full_at.get(name, 0), now)
        if len(self._full_at) > MAX_COUNTED:
            self._forget(now)
        return left

    def _forget(self, now: int) -> None:
        """Forget who has all of its requests again; where nobody has, everybody: memory is bounded, come what may."""
        self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        if len(self._full_at) > MAX_COUNTED:
            self._full_at.clear()


def _refusal(left: Allowance, window: int) -> RateLimited:
    seconds, per = -(-left.wait // SECOND), "a minute" if window == MINUTE else "an hour"
    used = "1 request {} is" if left.limit == 1 else f"{left.limit} requests {{}} are"
    message = f"{used.format(per)} used up; try again in {seconds} s"
    return RateLimited("rate_limited", message, limit=left.limit, wait_seconds=seconds)


def _address(connection: HTTPConnection) -> str:
    """Name where a request comes from; of IPv6 the network, for a host has more addresses there than one can count."""
    host = connection.client.host if connection.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return address.exploded[:19] if isinstance(address, IPv6Address) and not address.ipv4_mapped else host
