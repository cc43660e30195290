"""What a security scan of a patch found, and what follows from it (V-11).

Only what the patch adds is blamed: a finding on a line it adds, or one that its file at the base does not have (told
by fingerprint; of equal ones, as many as the base has are old). A new high finding blocks, a new medium one asks a
human. A finding never holds what was found.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict

from models.domain.canonical import digest_of
from models.domain.testing import presentable

MAX_FINDINGS = 1000
MAX_SARIF_BYTES = 16 * 1024 * 1024
"""Of one log: while it is parsed, nothing else of the process runs."""
MAX_RESULTS = 25_000
"""Of one run of a scanner: what GitHub takes of a SARIF log, too."""
SECRETS = "detect-secrets"
"""The scanner whose findings are secrets."""

_SARIF_VERSION = "2.1.0"
_NOT_OF_THE_SCHEMA = (LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
_MAX_TEXT = 300
_MAX_LINE = 2**31 - 1
_HIGH_SCORE, _MEDIUM_SCORE = 7.0, 4.0


class Level(StrEnum):
    """How bad a finding is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for high: sorts ascending."""
        return list(Level).index(self)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Finding(_Frozen):
    """One finding. `message` is the rule's own text, `fingerprint` a digest: neither shows what was found."""

    scanner: str
    rule: str
    level: Level
    path: str
    line: int = 0
    end_line: int = 0
    message: str
    fingerprint: str

    @property
    def is_secret(self) -> bool:
        """Whether what was found is a secret."""
        return self.scanner == SECRETS


class ScannerRun(_Frozen):
    """A scanner that ran."""

    name: str
    version: str


class Skipped(_Frozen):
    """Something that was not scanned, and why."""

    name: str
    reason: str


class Scan(_Frozen):
    """What one or more scanners brought."""

    findings: tuple[Finding, ...] = ()
    scanners: tuple[ScannerRun, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class ScanReport(Scan):
    """All that the scan of one patch found new, worst first. `left_out` counts findings beyond the first thousand."""

    left_out: int = 0

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """Findings that fail the stage."""
        return self._of(Level.HIGH)

    @property
    def secrets(self) -> bool:
        """Whether the patch surely holds a secret, so that its text must not be kept."""
        return any(found.is_secret for found in self.blocking)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each level are kept."""
        return {level.value: len(self._of(level)) for level in Level}

    @property
    def reason(self) -> str:
        """Why the stage fails; empty when it does not."""
        shown = "; ".join(f"{found.path}:{found.line} {found.message} ({found.rule})" for found in self.blocking[:5])
        more = f" and {len(self.blocking) - 5} more" if len(self.blocking) > 5 else ""
        return f"{len(self.blocking)} new high finding(s): {shown}{more}" if self.blocking else ""

    def _of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.level is level)


def blamed(
    head: Iterable[Finding],
    base: Iterable[Finding],
    added: Mapping[str, Collection[int]],
    renamed: Mapping[str, str] | None = None,
) -> tuple[Finding, ...]:
    """Keep the findings that the patch brought.

    Args:
        added: numbers of the lines that the patch adds, per file.
        renamed: new paths by old ones.
    """
    head, names = list(head), renamed or {}
    old = Counter((names.get(found.path, found.path), found.fingerprint) for found in base)
    lines = {path: sorted(numbers) for path, numbers in added.items()}
    touched = {index for index, found in enumerate(head) if _touches(found, lines.get(found.path, ()))}
    new = []
    for index, found in enumerate(head):
        if index in touched or old[found.path, found.fingerprint] <= 0:
            new.append(found)
        else:
            old[found.path, found.fingerprint] -= 1
    return tuple(new)


def gather(*scans: Scan) -> ScanReport:
    """Put several scans together: worst first, bounded."""
    findings = [found for scan in scans for found in scan.findings]
    findings.sort(key=lambda found: (found.level.rank, found.path, found.line, found.rule))
    return ScanReport(
        findings=tuple(findings[:MAX_FINDINGS]),
        scanners=tuple(scanner for scan in scans for scanner in scan.scanners),
        skipped=tuple(skipped for scan in scans for skipped in scan.skipped),
        left_out=max(0, len(findings) - MAX_FINDINGS),
    )


def parse_sarif(data: bytes, root: str, room: int = MAX_RESULTS) -> tuple[list[ScannerRun], list[Finding]]:
    """Read a SARIF 2.1.0 log.

    Suppressions in the source do not count: the judged never write the law. Messages are the rules', not the results',
    because scanners for secrets quote what they found.

    Args:
        root: the folder its absolute paths begin with.
        room: how many results may still come.

    Raises:
        ValueError: what is wrong with it.
    """
    log = _json_object(data)
    if log.get("version") != _SARIF_VERSION:
        raise ValueError(f"it is not SARIF {_SARIF_VERSION}")
    try:
        count = sum(len(run.get("results") or ()) for run in log["runs"])
        runs = [_run(run, root) for run in log["runs"]] if count <= room else []
    except _NOT_OF_THE_SCHEMA as error:
        raise ValueError(f"it does not follow the SARIF schema ({type(error).__name__})") from None
    if count > room:
        raise ValueError(f"with it, there are more than {MAX_RESULTS} results")
    return [scanner for scanner, _ in runs], [found for _, findings in runs for found in findings]


def _touches(found: Finding, added: Sequence[int]) -> bool:
    first = bisect_left(added, found.line)
    return first < len(added) and added[first] <= max(found.line, found.end_line)


def _json_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_SARIF_BYTES:
        raise ValueError(f"it is longer than {MAX_SARIF_BYTES} bytes")
    try:
        log = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(log, dict):
        raise ValueError("it is not a JSON object")
    return log


def _run(run: dict[str, Any], root: str) -> tuple[ScannerRun, list[Finding]]:
    driver = run["tool"]["driver"]
    scanner = ScannerRun(
        name=_text(driver["name"]), version=_text(driver.get("semanticVersion") or driver.get("version"))
    )
    rules = {str(rule["id"]): rule for rule in driver.get("rules") or []}
    results = [result for result in run.get("results") or [] if result.get("kind", "fail") == "fail"]
    return scanner, [_finding(scanner.name, result, rules, root) for result in results]


def _finding(scanner: str, result: dict[str, Any], rules: dict[str, dict[str, Any]], root: str) -> Finding:
    name = str(result.get("ruleId") or (result.get("rule") or {}).get("id") or "")
    rule = rules.get(name, {})
    places = [place["physicalLocation"] for place in result.get("locations") or [] if "physicalLocation" in place]
    place = places[0] if places else {}
    region = place.get("region") or {}
    path = _path((place.get("artifactLocation") or {}).get("uri", ""), root)
    line = _line(region.get("startLine") or 0)
    text = (rule.get("shortDescription") or {}).get("text") or rule.get("name") or name
    return Finding(
        scanner=scanner,
        rule=_text(name),
        level=_level(result, rule),
        path=path,
        line=line,
        end_line=min(_line(region.get("endLine") or line), line + 1000),
        message=_text(text),
        fingerprint=digest_of([scanner, name, result.get("partialFingerprints") or {}]),
    )


def _level(result: dict[str, Any], rule: dict[str, Any]) -> Level:
    """Use the score of GitHub's convention where the rule has one, else SARIF's own level."""
    score = (rule.get("properties") or {}).get("security-severity")
    if score is not None:
        number = _score(score)
        return Level.HIGH if number >= _HIGH_SCORE else Level.MEDIUM if number >= _MEDIUM_SCORE else Level.LOW
    default = (rule.get("defaultConfiguration") or {}).get("level", "warning")
    return {"error": Level.HIGH, "warning": Level.MEDIUM}.get(str(result.get("level", default)), Level.LOW)


def _score(score: Any) -> float:
    """Read a rule's score, which each of its results asks for: no long ones."""
    if isinstance(score, str) and len(score) > _MAX_TEXT:
        raise ValueError("no score")
    return float(score)


def _path(uri: str, root: str) -> str:
    path = unquote(uri.removeprefix("file://")).removeprefix(root + "/")
    return presentable(path.removeprefix("./"), _MAX_TEXT)


def _line(number: Any) -> int:
    return max(0, min(int(number), _MAX_LINE))


def _text(value: Any) -> str:
    return presentable(value if value and isinstance(value, str) else "unknown", _MAX_TEXT)
