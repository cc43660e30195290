"""Gathers the cases of one report within bounds, whichever runner wrote it."""

from models.domain.testing import Outcome, TestCase, normal_id, presentable

MAX_CASES = 200_000
MAX_BYTES = 32 * 1024 * 1024
"""Of all ids and messages of a report: a suite's one long file name stands in each of its cases' ids."""
MAX_ID, MAX_MESSAGE = 2000, 300

_LONGEST = 1e9
"""Seconds; what claims to have run for longer was not measured."""


class TooLarge(ValueError):
    """The report has more cases, or longer ones, than may be read; the message says which."""


class Cases:
    """The cases of one report, one by one."""

    def __init__(self) -> None:
        self.found: list[TestCase] = []
        self._bytes = 0

    def add(self, id: str, outcome: Outcome, seconds: float, message: str) -> None:
        """Take a case as it was told: cut, cleaned and normalised it is kept.

        Raises:
            TooLarge: it is one too many.
        """
        case = TestCase(
            id=normal_id(presentable(id, MAX_ID)),
            outcome=outcome,
            seconds=float(seconds) if 0 <= seconds < _LONGEST else 0,
            message=presentable(message.strip(), MAX_MESSAGE),
        )
        self.require_room(1)
        self._bytes += len(case.id.encode()) + len(case.message.encode())
        if self._bytes > MAX_BYTES:
            raise TooLarge(f"its ids and messages are longer than {MAX_BYTES} bytes")
        self.found.append(case)

    def require_room(self, count: int) -> None:
        """Refuse what cannot become cases any more, before it is gathered elsewhere.

        Raises:
            TooLarge: there would be too many.
        """
        if len(self.found) + count > MAX_CASES:
            raise TooLarge(f"it has more than {MAX_CASES} cases")
