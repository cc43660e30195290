"""Whatever a command leaves, its reader gives what can be stored, or refuses it: nothing else may end an activity."""

import encodings
import json
import pkgutil
import warnings
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activities.workbench.cases import Cases, TooLarge
from activities.workbench.gotest import GoTestReader
from activities.workbench.junit import JunitRefused, parse_junit
from models.domain.errors import InvalidInput
from models.domain.metrics import parse_measurements
from models.domain.scanning import parse_sarif

Read = Callable[[bytes], Iterable[str]]

CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))
ODD_ENCODINGS = [*CODECS, "utf-7", "foo", "x" * 3000, "a.b", "..", "-", "a-b_c", "big5\0"]
JUNIT = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite name="pytest" file="a.py" tests="2">'
    b'<testcase classname="tests.test_a.TestA" name="test_b[&lt;1&gt;]" time="0.5" status="run"/>'
    b'<testcase name="test_c" time="1e9"><failure message="no &#233;">told\xc3\xa9<![CDATA[you]]></failure></testcase>'
    b"<testcase name='d'><skipped/></testcase></testsuite></testsuites>"
)
GO = b"\n".join(
    (
        b'{"Action":"start","Package":"m"}',
        b'{"Action":"run","Package":"m","Test":"TestA"}',
        b'{"Action":"output","Package":"m","Test":"TestA","Output":"a_test.go:3: \\u00e9\\n"}',
        b'{"Action":"fail","Package":"m","Test":"TestA","Elapsed":0.25}',
        b'{"ImportPath":"n [n.test]","Action":"build-output","Output":"# n\\n"}',
        b'{"Action":"fail","Package":"n","Elapsed":1,"FailedBuild":"n [n.test]"}',
    )
)
DEEP = b"[" * 990 + b"]" * 990
SARIF = json.dumps(
    {
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "own",
                        "semanticVersion": "1",
                        "rules": [
                            {
                                "id": "r",
                                "shortDescription": {"text": "bad"},
                                "properties": {"security-severity": "7.5"},
                                "defaultConfiguration": {"level": "note"},
                            }
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": "r",
                        "level": "error",
                        "kind": "fail",
                        "partialFingerprints": {"a/v1": "00"},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": "file:///workspace/a%20b.py"},
                                    "region": {"startLine": 3, "endLine": 9},
                                }
                            }
                        ],
                    }
                ],
            }
        ],
    }
).encode()
LINES, OBJECT = b"latency_p99 12.5\nerrors:rate 0\nq/w-e -3e2\n", b'{"latency_p99": 12.5, "errors:rate": 0}'

TOKENS = [
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"NaN", b"-Infinity", b"1e999", b"9" * 5000),
    *(b"<", b">", b"&", b"]]>", b"<!DOCTYPE x>", b"&#0;", b"&#xd800;", b"&nope;", b'encoding="big5"', b"xmlns:a='b'"),
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"1", b'""', b"{}", b"[]", DEEP, b'{"a":' * 900),
    *(b"\n", b"\r", b" ", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[31m"),
]


def junit(data: bytes) -> Iterable[str]:
    cases = Cases()
    half = len(data) // 2
    try:
        parse_junit((data[:half], data[half:]), cases)
    except JunitRefused as error:
        return [str(error)]
    return [text for case in cases.found for text in (case.id, case.message)]


def gotest(data: bytes) -> Iterable[str]:
    reader = GoTestReader()
    reader.feed(data)
    try:
        found = reader.cases()
    except TooLarge as error:
        return [str(error)]
    return [reader.last_words, *(text for case in found for text in (case.id, case.message))]


def sarif(data: bytes) -> Iterable[str]:
    try:
        scanners, found = parse_sarif(data, "/workspace")
    except ValueError as error:
        return [str(error)]
    return [*map(str, scanners), *(text for one in found for text in (one.scanner, one.rule, one.path, one.message))]


def measurements(data: bytes) -> Iterable[str]:
    try:
        return parse_measurements(data, "the probe")
    except InvalidInput as error:
        return [error.message]


READERS: list[tuple[Read, list[bytes]]] = [
    (junit, [JUNIT]),
    (gotest, [GO]),
    (sarif, [SARIF]),
    (measurements, [LINES, OBJECT]),
]


def mutated(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """A valid file with a few places cut out, or overwritten by what readers stumble over."""
    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from([b"", *TOKENS])), max_size=6)
    return st.builds(_edit, st.sampled_from(valid), edits)


def _edit(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, token in edits:
        at = int(place * len(data))
        data = data[:at] + token + data[at + length :]
    return data


@pytest.mark.parametrize(("read", "valid"), READERS, ids=lambda value: getattr(value, "__name__", ""))
class TestAnyBytes:
    def test_are_read_or_refused(self, read: Read, valid: list[bytes]) -> None:
        @given(st.one_of(st.binary(max_size=400), mutated(valid)))
        @example(b"")
        @example(b"\0")
        def check(data: bytes) -> None:
            for text in read(data):
                assert "\0" not in text, "Postgres keeps no NUL"
                text.encode()

        check()


class TestEncodings:
    @pytest.mark.parametrize("name", ODD_ENCODINGS, ids=lambda name: name[:20])
    def test_any_is_read_or_refused(self, name: str) -> None:
        for rest in (b"<testsuite><testcase name='a'/></testsuite>", b"<testsuite><testcase name='\xe9'/></testsuite>"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # some codecs warn of what they are given
                junit(f"<?xml version='1.0' encoding='{name}'?>".encode() + rest)

    def test_the_refusal_says_what_to_write(self) -> None:
        with pytest.raises(JunitRefused, match="UTF-8"):
            parse_junit([b"<?xml version='1.0' encoding='big5'?><testsuite/>"], Cases())

    @pytest.mark.parametrize("name", ["iso-8859-1", "windows-1252", "utf-16", "us-ascii"])
    def test_the_usual_ones_are_read(self, name: str) -> None:
        text = f"<?xml version='1.0' encoding='{name}'?><testsuite><testcase name='a'/></testsuite>"
        assert junit(text.encode(name)) == ["a", ""]


class TestDeepNesting:
    """At each depth up to beyond what Python's own parser takes: the last it takes is the one to fear."""

    @pytest.mark.parametrize("key", ["Action", "Package", "Test", "Output"])
    def test_of_an_event_of_go(self, key: str) -> None:
        for depth in range(900, 1000):
            event = {"Action": "pass", "Package": "m", "Test": "T", "Output": "o"}
            gotest(json.dumps(event | {key: "?"}).replace('"?"', "[" * depth + "]" * depth).encode())

    @pytest.mark.parametrize("key", [b'"r"', b'"error"', b'"00"', b'"bad"', b'"7.5"', b"3"])
    def test_of_sarif(self, key: bytes) -> None:
        for depth in range(900, 1000):
            sarif(SARIF.replace(key, b"[" * depth + b"]" * depth))

    def test_of_measurements(self) -> None:
        for depth in range(900, 1000):
            measurements(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
