"""What is said to those who write JSON or YAML, and know nothing of our Python: in their words, and briefly."""

import re
from collections.abc import Sequence

from models.domain.spellings import WORDS

_PYTHON = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"<\w+\.\w+: ('[^']*')>"), r"\1"),
    (re.compile(r"^(?:Tuple|List) (.*) after validation"), r"Array \1"),
    (re.compile(r"valid (?:tuple|list)$"), "valid array"),
    (re.compile(r"valid dictionary.*$"), "valid object"),
)
_PATTERN = re.compile(r"^String should match pattern '(.*)'$", re.DOTALL)


def shortened(text: str, limit: int) -> str:
    """Cut a text that may quote what somebody sent: beginning and end stay, which say what is wrong and what to do."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end - 1]}…{text[-end:]}"


SHOWN, _CHARS = 10, 200
"""How many of many names are said, and how much of each."""


def some(names: Sequence[str], others: str = "") -> str:
    """Name the first few of many, and say how many more there are, or that there are `others`."""
    first = ", ".join(name if len(name) <= _CHARS else f"{name[:_CHARS]}…" for name in names[:SHOWN])
    return f"{first} and {others or f'{len(names) - SHOWN} more'}" if len(names) > SHOWN else first


def plain(message: str) -> str:
    """Say a problem without the names of Python's types, of our enums and of exceptions, and without patterns."""
    for pattern, said in _PYTHON:
        message = pattern.sub(said, message)
    return _PATTERN.sub(lambda found: WORDS.get(found[1], found[0]), message)
