"""Reads a unified diff, git's or plain, as raw facts; `models.domain.patches` judges them."""

import re
from dataclasses import dataclass, field

from models.domain.errors import InvalidInput

_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_HEADERS = re.compile(rb"(old mode|new mode|new file mode|deleted file mode|(?:rename|copy) (?:from|to)) (.+)")
_INDEX_MODE = re.compile(rb"index [0-9a-f]+\.\.[0-9a-f]+ (\d{6})")
_SIDES = {b" ": (1, 1), b"": (1, 1), b"-": (1, 0), b"+": (0, 1), b"\\": (0, 0)}
"""How many lines of the old and the new file a line of a hunk stands for, by its sign."""
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)


@dataclass
class RawFile:
    """What a diff says of one file, names without their `a/` and `b/`, None for a side that does not exist."""

    old: bytes | None = None
    new: bytes | None = None
    kind: str = ""
    mode: str = ""
    old_mode: str = ""
    added: int = 0
    removed: int = 0
    binary: bool = False
    added_text: bytes = field(default=b"", repr=False)
    """The added lines of a symbolic link: its target."""


def read_diff(data: bytes) -> list[RawFile]:
    """List the files of a diff; text around it (a mail's head, a signature) is skipped, as git does.

    Raises:
        InvalidInput: `patch_not_a_diff`, naming the line.
    """
    reader = _Reader(data)
    reader.read()
    if not reader.files:
        raise InvalidInput("patch_not_a_diff", "The patch holds no unified diff (what `git diff` prints).")
    return reader.files


class _Reader:
    """Walks over the lines; hunks are skipped by their counts, so that content is never taken for a header."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.removesuffix(b"\n").split(b"\n")
        self._at = 0
        self.files: list[RawFile] = []
        self._in_git_header = False

    def read(self) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith(b"diff --git "):
                self._start(line)
            elif line.startswith(b"--- ") and self._following().startswith(b"+++ "):
                self._names(line, self._following())
            elif self.files and line.startswith(b"@@ -"):
                self._hunk(line)
            elif self._in_git_header:
                self._header(line)
            self._at += 1

    def _following(self) -> bytes:
        return self._lines[self._at + 1] if self._at + 1 < len(self._lines) else b""

    def _start(self, line: bytes) -> None:
        self._refuse_carriage_return(line)
        old, new = _names_of_git_line(line.removeprefix(b"diff --git "))
        self.files.append(RawFile(old, new))
        self._in_git_header = True

    def _names(self, old_line: bytes, new_line: bytes) -> None:
        self._refuse_carriage_return(new_line)
        if not self._in_git_header:
            self.files.append(RawFile())
        file = self.files[-1]
        file.old, file.new = _name(old_line[4:]), _name(new_line[4:])
        if file.old is None and file.new is None:
            raise self._broken("both sides are /dev/null")
        self._at += 1
        self._in_git_header = False

    def _header(self, line: bytes) -> None:
        file = self.files[-1]
        if match := _HEADERS.fullmatch(line):
            self._extended(file, match[1], match[2])
        elif match := _INDEX_MODE.fullmatch(line):
            file.mode = file.old_mode = match[1].decode()
        elif line == b"GIT binary patch" or (line.startswith(b"Binary files ") and line.endswith(b" differ")):
            file.binary = True
            self._in_git_header = False

    def _extended(self, file: RawFile, name: bytes, value: bytes) -> None:
        if name == b"old mode":
            file.old_mode = value.decode("ascii", "replace")
        elif name == b"new mode":
            file.mode = value.decode("ascii", "replace")
        elif name == b"new file mode":
            file.kind, file.mode, file.old = "added", value.decode("ascii", "replace"), None
        elif name == b"deleted file mode":
            file.kind, file.old_mode, file.new = "deleted", value.decode("ascii", "replace"), None
        else:
            file.kind = "renamed" if name.startswith(b"rename") else "copied"
            old = name.endswith(b"from")
            file.old, file.new = (_unquote(value), file.new) if old else (file.old, _unquote(value))

    def _hunk(self, line: bytes) -> None:
        match = _HUNK.match(line)
        if match is None:
            raise self._broken("a hunk's head cannot be read")
        left, right = (int(count) if count is not None else 1 for count in match.groups())
        start = self._at + 1
        self._skip_body(left, right)
        body = self._lines[start : self._at + 1]
        signs = [text[:1] for text in body]
        file = self.files[-1]
        file.added += signs.count(b"+")
        file.removed += signs.count(b"-")
        if file.mode == "120000":
            file.added_text += b"".join(text[1:] for text in body if text.startswith(b"+"))
        self._in_git_header = False

    def _skip_body(self, left: int, right: int) -> None:
        """Go to the last of a hunk's lines, of which `left` are the old file's and `right` the new one's."""
        try:
            while left > 0 or right > 0:
                self._at += 1
                old, new = _SIDES[self._lines[self._at][:1]]
                left -= old
                right -= new
        except IndexError:
            raise self._broken("the last hunk is cut short") from None
        except KeyError:
            raise self._broken("a hunk is cut short or damaged") from None
        if left < 0 or right < 0:
            raise self._broken("a hunk has more lines than its head says")

    def _refuse_carriage_return(self, line: bytes) -> None:
        if line.endswith(b"\r"):
            raise self._broken("its lines end with CRLF: send it as `git diff` printed it")

    def _broken(self, why: str) -> InvalidInput:
        return InvalidInput("patch_not_a_diff", f"The patch cannot be read at line {self._at + 1}: {why}.")


def _names_of_git_line(rest: bytes) -> tuple[bytes | None, bytes | None]:
    """Split `a/NAME b/NAME`. Names with spaces are only told apart when both are equal, as git does."""
    if rest.startswith(b'"') or rest.endswith(b'"'):
        quoted = re.fullmatch(rb'("(?:\\.|[^"\\])*"|\S+) ("(?:\\.|[^"\\])*"|\S+)', rest)
        return (_strip(_unquote(quoted[1])), _strip(_unquote(quoted[2]))) if quoted else (None, None)
    middle = len(rest) // 2
    if rest[middle : middle + 1] == b" " and _strip(rest[:middle]) == _strip(rest[middle + 1 :]):
        return _strip(rest[:middle]), _strip(rest[middle + 1 :])
    halves = rest.split(b" ")
    return (_strip(halves[0]), _strip(halves[1])) if len(halves) == 2 else (None, None)


def _name(value: bytes) -> bytes | None:
    """The file name of a `---` or `+++` line: quoted, or up to the tab that sets off a time."""
    name = _unquote(value) if value.startswith(b'"') else value.split(b"\t", 1)[0]
    return None if name == b"/dev/null" else _strip(name)


def _strip(name: bytes) -> bytes:
    """Take the first folder (`a/`, `b/`) off, as `git apply -p1` does; an absolute path stays one."""
    if name.startswith(b"/"):
        return name
    head, slash, rest = name.partition(b"/")
    return rest if slash else head


def _unquote(name: bytes) -> bytes:
    """Undo git's C-style quoting of unusual names."""
    match = re.match(rb'"((?:\\.|[^"\\])*)"', name, re.DOTALL)
    if match is None:
        return name
    return _ESCAPED.sub(lambda m: bytes([int(m[1], 8) if len(m[1]) == 3 else _ESCAPES.get(m[1], m[1][0])]), match[1])
