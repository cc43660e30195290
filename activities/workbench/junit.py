"""Reads JUnit XML as a stream: no tree is built, so a file costs no more memory than its cases."""

from collections.abc import Iterable

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from activities.workbench.cases import MAX_ID, MAX_MESSAGE, Cases, TooLarge
from activities.workbench.command import WORKSPACE
from models.domain.testing import Outcome

MAX_DEPTH = 100
MAX_TAG = 1024 * 1024
"""Bytes of one tag: the parser reads an unfinished one from its beginning again with each chunk."""

_OUTCOMES = {"error": Outcome.ERROR, "failure": Outcome.FAILED, "skipped": Outcome.SKIPPED}
_READ = ("file", "name", "classname", "status", "time")
_NOT_RUN = {"notrun", "disabled", "skipped"}


class JunitRefused(ValueError):
    """The file is not JUnit XML, or would cost more than it may; the message says which."""


def parse_junit(chunks: Iterable[bytes], cases: Cases) -> None:
    """Read the cases of one file into those of its report.

    Ids are written as people write them: `tests/test_x.py::TestC::test_m[1]` for pytest, `file::class::name` or
    `class::name` for others.

    Raises:
        JunitRefused: it is not well-formed, declares a DTD or entities (bombs), is nested too deeply or too long, or in
            an encoding that is not read.
    """
    parser = DefusedXMLParser(target=_Target(cases), forbid_dtd=True)
    fed = 0
    try:
        for chunk in chunks:
            parser.feed(chunk)
            fed += len(chunk)
            if fed - parser.parser.CurrentByteIndex > MAX_TAG:
                raise JunitRefused(f"a tag is longer than {MAX_TAG} bytes")
        parser.close()
    except DefusedXmlException:
        raise JunitRefused("it declares a DTD or entities, as XML bombs do") from None
    except ParseError as error:
        raise JunitRefused(f"it is not well-formed XML ({error})") from None
    except (JunitRefused, TooLarge) as error:
        raise JunitRefused(str(error)) from None
    except (ValueError, LookupError):
        # What Python's codecs say of a name that is none, or that the parser has no table for.
        raise JunitRefused("its encoding is unknown, or none that is read here: write it in UTF-8") from None


class _Target:
    """Gathers cases from the parser's events."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._suites: list[dict[str, str]] = []
        self._depth = 0
        self._case: dict[str, str] | None = None
        self._outcome = Outcome.PASSED
        self._message = ""
        self._listening = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise JunitRefused(f"it is nested more than {MAX_DEPTH} elements deep")
        name = _local(tag)
        if name == "testsuite":
            self._suites.append(_cut(attributes))
        elif name == "testcase":
            self._begin(_cut(attributes))
        elif self._case is not None and name in _OUTCOMES:
            self._worsen(_OUTCOMES[name], attributes.get("message", ""))

    def data(self, text: str) -> None:
        """Take text: the beginning of a failure's, where its `message` attribute says nothing."""
        if self._listening and len(self._message) < MAX_MESSAGE:
            self._message += text[:MAX_MESSAGE]

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        self._depth -= 1
        name = _local(tag)
        if name == "testsuite":
            self._suites.pop()
        elif name == "testcase":
            self._finish()
        elif name in _OUTCOMES:
            self._listening = False

    def _begin(self, attributes: dict[str, str]) -> None:
        self._case, self._message = attributes, ""
        self._outcome = Outcome.SKIPPED if attributes.get("status") in _NOT_RUN else Outcome.PASSED

    def _worsen(self, outcome: Outcome, message: str) -> None:
        ranked = (Outcome.PASSED, Outcome.SKIPPED, Outcome.FAILED, Outcome.ERROR)
        self._outcome = max(self._outcome, outcome, key=ranked.index)
        self._message = self._message or message[:MAX_MESSAGE]
        self._listening = not self._message

    def _finish(self) -> None:
        if self._case is None:
            return
        suite = self._suites[-1] if self._suites else {}
        id, seconds = _case_id(self._case, suite), _seconds(self._case.get("time", ""))
        self._cases.add(id, self._outcome, seconds, self._message)
        self._case = None


def _cut(attributes: dict[str, str]) -> dict[str, str]:
    """Bound what is worked with: a suite's words are looked at again for each of its cases."""
    return {name: attributes[name][: MAX_ID + 1] for name in _READ if name in attributes}


def _case_id(case: dict[str, str], suite: dict[str, str]) -> str:
    file = (case.get("file") or suite.get("file") or "").removeprefix(WORKSPACE + "/")
    classname, name = case.get("classname", ""), case.get("name", "")
    if not file and suite.get("name") == "pytest":
        file = _pytest_file(classname)
    return "::".join(_parts(file, classname, name))


def _parts(file: str, classname: str, name: str) -> list[str]:
    module = file.removesuffix(".py").replace("/", ".") if file.endswith(".py") else ""
    if module and name == module and not classname:
        return [file]  # pytest's word for a file that could not be collected
    if module and (classname + ".").startswith(module + "."):
        return [file, *classname[len(module) + 1 :].split("."), name] if classname != module else [file, name]
    same = classname in ("", file, file.replace("/", "."))
    return [part for part in (file, "" if file and same else classname, name) if part]


def _pytest_file(classname: str) -> str:
    """Guess the file where pytest did not write it: modules are lower case, classes are not."""
    parts = classname.split(".")
    modules = next((parts[:i] for i, part in enumerate(parts) if part[:1].isupper()), parts)
    return "/".join(modules) + ".py" if modules and modules[0] else ""


def _seconds(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
