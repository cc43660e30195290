"""Pydantic's messages in the words of those who write JSON or YAML, and know nothing of our Python."""

import re

_PYTHON = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"<\w+\.\w+: ('[^']*')>"), r"\1"),
    (re.compile(r"^(?:Tuple|List) (.*) after validation"), r"Array \1"),
    (re.compile(r"valid (?:tuple|list)$"), "valid array"),
    (re.compile(r"valid dictionary.*$"), "valid object"),
)


def plain(message: str) -> str:
    """Say a problem without the names of Python's types, of our enums and of exceptions."""
    for pattern, said in _PYTHON:
        message = pattern.sub(said, message)
    return message
