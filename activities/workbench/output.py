"""What is done to a foreign command's output before anybody sees it: names put right, secrets hidden, size bounded."""

import re
from collections.abc import Mapping

CREDENTIALS = re.compile(rb"//[^\s/]+@")
LONGEST_LINE = 16 * 1024
KEPT = 1024 * 1024


class Scrubber:
    """Replaces fixed words in a stream, also where a word is cut in two by a chunk's end.

    Holds back only what may be the beginning of a word, so that progress dots still arrive as they are printed.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = {old.encode(): new.encode() for old, new in words.items() if old and old != new}
        longest_first = sorted(self._words, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; give what is settled."""
        if self._pattern is None:
            return data
        data = self._held + data
        cut = self._settled(data)
        for match in self._pattern.finditer(data):
            if match.start() < cut < match.end():
                cut = match.end()
        self._held = data[cut:]
        return self._replace(data[:cut])

    def flush(self) -> bytes:
        """Give what was held back; the stream has ended."""
        held, self._held = self._held, b""
        return self._replace(held)

    def _settled(self, data: bytes) -> int:
        """Where the last bytes begin that may yet become a word."""
        longest = max(map(len, self._words))
        starts = range(max(0, len(data) - longest + 1), len(data))
        return next((at for at in starts if self._may_grow(data[at:])), len(data))

    def _may_grow(self, tail: bytes) -> bool:
        return any(len(word) > len(tail) and word.startswith(tail) for word in self._words)

    def _replace(self, data: bytes) -> bytes:
        if self._pattern is None:
            return data
        return self._pattern.sub(lambda match: self._words[match[0]], data)


class CredentialFilter:
    """Hides the user and password of every URL in a stream, line by line."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; give whole lines, or a line that has grown too long to wait for."""
        data = self._held + data
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - cut > LONGEST_LINE:
            cut = len(data)
        self._held = data[cut:]
        return CREDENTIALS.sub(b"//***@", data[:cut])

    def flush(self) -> bytes:
        """Give the last line, though nothing ended it."""
        held, self._held = self._held, b""
        return CREDENTIALS.sub(b"//***@", held)


class CappedLog:
    """Keeps a stream's first and last megabyte, whatever its length, and says how much lay between.

    `total` counts the bytes that were written.
    """

    def __init__(self, head: int = KEPT, tail: int = KEPT) -> None:
        self._head_size, self._tail_size = head, tail
        self._head, self._tail = bytearray(), bytearray()
        self.total = 0

    def write(self, data: bytes) -> None:
        """Append to the stream."""
        self.total += len(data)
        room = self._head_size - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Trimmed at twice its size, not at every write: deleting from the front moves all that follows.
        if len(self._tail) > 2 * self._tail_size:
            del self._tail[: -self._tail_size]

    @property
    def dropped(self) -> int:
        """How many bytes are left out."""
        return max(0, self.total - self._head_size - self._tail_size)

    def content(self) -> bytes:
        """The log as it is stored."""
        if not self.dropped:
            return bytes(self._head + self._tail)
        gap = f"\n[{self.dropped} bytes left out]\n".encode()
        return bytes(self._head) + gap + bytes(self._tail[-self._tail_size :])
