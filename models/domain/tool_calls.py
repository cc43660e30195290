"""Tool calls: which an agent may make at all, what a policy is told of them, and how they stand (POL-11, V-31)."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from models.domain.canonical import digest_of
from models.domain.names import PRODUCTION, alike, environment
from models.domain.policy import Outcome
from models.domain.states import DecisionStatus

EXPIRES_IN = timedelta(hours=24)
MAX_ASKED = 200
"""Questions of one run that wait at a time: people read no more, and all of them end with the run at once."""
MAX_ARGUMENTS = 16_384
"""Bytes of JSON: people read them, and every pattern of `secret_paths` is held against them."""

MADE = "made already, without an approval"

_WORDS = tuple(re.compile(rf"[^\s\"'`{signs}]+") for signs in ("", r"=:;|<>()\[\]{},&", r"=:;|<>()\[\]{},&*?#%!@$\\"))
"""What stands between spaces and quotes, what is left of it without a shell's signs, and without those of URLs, too."""


class CallStatus(StrEnum):
    """How a tool call stands. It is `allowed` until its caller has told how it went."""

    PENDING = "pending"
    DENIED = "denied"
    ALLOWED = "allowed"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True)
class Said:
    """What was said of a call: by the list of tools (`refused`), the policy, and whoever was asked."""

    refused: str | None = None
    outcome: Outcome | None = None
    reasons: tuple[str, ...] = ()
    answer: DecisionStatus | None = None
    words: str = ""


def is_listed(tool: str, tools: Iterable[str]) -> bool:
    """Whether a tool is among those that an agent may call."""
    return any(fnmatchcase(alike(tool), alike(pattern)) for pattern in tools)


def digest(tool: str, arguments: dict[str, Any]) -> str:
    """Name what exactly is to be called."""
    return digest_of({"tool": tool, "arguments": arguments})


def where(declared: str | None, known: str) -> str:
    """Tell the environment that a call reaches. Its caller may say that it is production, never that it is not."""
    said, known = environment(declared or known), environment(known)
    return PRODUCTION if PRODUCTION in (said, known) else said


def secrets_among(arguments: dict[str, Any], patterns: re.Pattern[str]) -> tuple[str, ...]:
    """Find the words of the arguments that name secrets. Nothing else of the arguments is kept with a verdict."""
    words = {word for text in _texts(arguments) for word in _WORDS[0].findall(text)}
    return tuple(sorted({name for word in words for name in _barest(word, patterns)}))


def _barest(word: str, patterns: re.Pattern[str]) -> list[str]:
    """Of what in a word names secrets, give what has the fewest signs: a password may stand before them in a URL."""
    for form in reversed(_WORDS):
        if found := [part for part in form.findall(word) if _is_secret(alike(part), patterns)]:
            return found
    return []


def _is_secret(word: str, patterns: re.Pattern[str]) -> bool:
    """Whether a word names a secret, also as a folder: with a slash behind it, or without one."""
    return any(patterns.fullmatch(form) for form in (word, word.rstrip("/.")))


def standing(
    said: Said,
    *,
    ended: bool,
    error: str | None,
    over: str | None = None,
    barred: str | None = None,
    held: str | None = None,
) -> tuple[CallStatus, str | None]:
    """Tell how a call stands and, where it may not be made, why. `over`: its `run` or `mission`, if that has ended.

    `barred` says why one that was approved may no more be made, `held` what keeps its run from beginning anything: one
    that waited for an answer then waits on. One that had ended before it was allowed was made without asking: what is
    said of it says so.
    """
    made = f"{MADE}; " if ended else ""
    if (why := _denial(said, over)) is not None:
        return CallStatus.DENIED, f"denied: {made}{why}"
    if said.outcome is Outcome.ASK and said.answer is not DecisionStatus.APPROVED:
        return CallStatus.PENDING, f"pending: {made}{'; '.join(said.reasons)}"
    if not ended and over is not None:
        return CallStatus.DENIED, f"denied: its {over} has ended, and nobody had told that it was made"
    if not ended and barred is not None:
        return CallStatus.DENIED, f"denied: {barred}"
    if not ended and held is not None and said.outcome is Outcome.ASK:
        return CallStatus.PENDING, f"pending: {held}"
    if not ended:
        return CallStatus.ALLOWED, None
    return (CallStatus.FAILED if error else CallStatus.SUCCESS), None


def _denial(said: Said, over: str | None) -> str | None:
    if said.refused:
        return said.refused
    if said.outcome is Outcome.DENY:
        return "; ".join(said.reasons)
    is_late = over is not None and said.outcome is Outcome.ASK and said.answer in (None, DecisionStatus.PENDING)
    answer = DecisionStatus.CANCELED if is_late else said.answer
    return _ANSWERS[answer].format(words=said.words, over=over or "run") if answer in _ANSWERS else None


_ANSWERS = {
    DecisionStatus.DENIED: "{words}",
    DecisionStatus.EXPIRED: "nobody answered in time",
    DecisionStatus.CANCELED: "its {over} ended before anybody answered",
}


def _texts(value: Any) -> Iterator[str]:
    """Give all texts of JSON data, also the keys of objects: a tool may be given files by name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from _all(value.values())
    elif isinstance(value, list):
        yield from _all(value)


def _all(values: Collection[Any]) -> Iterator[str]:
    for value in values:
        yield from _texts(value)
