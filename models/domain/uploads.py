"""How long the bytes of a request's body may take to come."""

SILENCE_SECONDS = 30.0
"""Until the first bytes, and between any two: longer than a lost packet or a moved telephone takes."""
BYTES_PER_SECOND = 256 * 1024
"""Beyond those, time is given for what has come: at 2 Mbit/s the longest body, 64 MiB, takes less than five minutes."""


def give_up_at(began: float, now: float, received: int) -> float:
    """When to wait no longer for more of a body, of which so much has come until now (all in seconds of one clock)."""
    return min(now + SILENCE_SECONDS, began + SILENCE_SECONDS + received / BYTES_PER_SECOND)
