"""How long a workflow waits for a signal before it looks itself for what that would tell.

A signal may be lost on its way for good: Temporal takes 10,000 of them for one workflow and refuses all others.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import repeat

from temporalio import workflow

from workflows.patches import Patch

SOON, SELDOM = timedelta(minutes=1), timedelta(hours=1)
"""At first soon, then ever more rarely: a history takes 50,000 events, a look is six of them, and waits last months."""


def looks() -> Iterator[timedelta | None]:
    """Give, one after the other, how long to wait for news; None where a mission began without looking."""
    if not workflow.patched(Patch.LOOKS_FOR_NEWS):
        yield from repeat(None)
    after = SOON
    while True:
        yield after
        after = min(2 * after, SELDOM)
