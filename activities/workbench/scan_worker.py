"""Runs bandit and detect-secrets over prepared files, in a process of its own: `scanners.py` starts it.

Both are used as libraries, so that no configuration, no `# nosec` and no allowlist of the scanned code is obeyed, and
nothing is verified over the network. What a secret is never leaves this process: findings carry keyed digests.
"""

import hmac
import json
import logging
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.domain.keys import SECRET

MAX_MEMORY = 2 * 1024**3
MAX_CPU_SECONDS = 300
TASK, ANSWER = "task.json", "answer.json"

# Shapes that other things have too; all other detectors know a token when they see one.
_VAGUE = {
    "Secret Keyword",
    "Base64 High Entropy String",
    "Hex High Entropy String",
    "Basic Auth Credentials",
    "JSON Web Token",
}
_NO_SECRET = {"Public IP (ipv4)"}


def main(folder: Path) -> None:
    """Do the task in `folder`, and leave the answer there; the salt comes from stdin, so that no file ever holds it."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    found = Scan(folder, sys.stdin.buffer.read())
    if task["python"]:
        found.bandit(task["python"])
    found.secrets(task["added"])
    answer = {"head": found.head, "base": found.base, "scanners": found.scanners}
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")


class Scan:
    """Gathers findings of the head, and of the base where that can matter."""

    def __init__(self, folder: Path, salt: bytes) -> None:
        self._folder, self._salt = folder, salt
        self.head: list[dict[str, Any]] = []
        self.base: list[dict[str, Any]] = []
        self.scanners: list[dict[str, str]] = []

    def bandit(self, files: list[dict[str, Any]]) -> None:
        """Scan Python files; a base version only where the head has a finding off the lines that the patch adds."""
        import bandit  # here, because most of the time goes into imports, and a patch may have no Python

        self.scanners.append({"name": "bandit", "version": bandit.__version__})
        by_head = {file["head"]: file for file in files}
        self.head = self._bandit_on(by_head)
        added = {file["path"]: file["added"] for file in files}
        doubtful = {found["path"] for found in self.head if found["line"] not in added[found["path"]]}
        self.base = self._bandit_on({file["base"]: file for file in files if file["base"] and file["path"] in doubtful})

    def secrets(self, added: dict[str, list[tuple[int, str]]]) -> None:
        """Look for secrets in added lines."""
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.filters import heuristic

        self.scanners.append({"name": "detect-secrets", "version": version("detect-secrets")})
        known: dict[str, Any] = get_mapping_from_secret_type_to_class()
        detectors = [detector() for kind, detector in known.items() if kind not in _NO_SECRET] + [_own_keys()]
        for path, lines in added.items():
            vague_too = not heuristic.is_lock_file(path)
            chosen = [one for one in detectors if vague_too or one.secret_type not in _VAGUE]
            for number, line in lines:
                self.head += self._secrets_in(chosen, path, number, line)

    def _bandit_on(self, files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        from bandit.core.config import BanditConfig
        from bandit.core.manager import BanditManager

        names = {str(self._folder / name): file for name, file in files.items()}
        manager = BanditManager(BanditConfig(), "file", ignore_nosec=True)
        manager.files_list = sorted(names)
        manager.run_tests()
        unread = [_unread(names[name]["path"], why) for name, why in manager.get_skipped()]
        return unread + [self._issue(names[issue.fname], issue) for issue in manager.results]

    def _issue(self, file: dict[str, Any], issue: Any) -> dict[str, Any]:
        lines = sorted(issue.linerange) or [issue.lineno]
        text = Path(issue.fname).read_bytes().split(b"\n")[lines[0] - 1 : lines[-1]]
        return {
            "scanner": "bandit",
            "rule": f"{issue.test_id} {issue.test}",
            "level": issue.severity.lower() if issue.severity in ("HIGH", "MEDIUM") else "low",
            "path": file["path"],
            "line": lines[0],
            "end_line": lines[-1],
            # Some rules quote what they found behind a colon, for instance passwords.
            "message": issue.text.partition(":")[0],
            "fingerprint": self._digest(issue.test_id, b"\n".join(line.strip() for line in text).decode("latin-1")),
        }

    def _secrets_in(self, detectors: list[Any], path: str, number: int, line: str) -> Iterator[dict[str, Any]]:
        for detector in detectors:
            for secret in detector.analyze_line(filename=path, line=line, line_number=number) or ():
                value = secret.secret_value or ""
                vague = detector.secret_type in _VAGUE
                if not (vague and _is_harmless(value, line, detector)):
                    yield {
                        "scanner": "detect-secrets",
                        "rule": detector.secret_type,
                        "level": "medium" if vague else "high",
                        "path": path,
                        "line": number,
                        "end_line": number,
                        "message": f"looks like a secret: {detector.secret_type}",
                        "fingerprint": self._digest(detector.secret_type, value),
                    }

    def _digest(self, *parts: str) -> str:
        data = "\0".join(parts).encode("utf-8", "replace")
        return "hmac-sha256:" + hmac.digest(self._salt, data, "sha256").hex()


def _own_keys() -> Any:
    """Make a detector of this product's own keys: agents have one at hand."""
    from detect_secrets.plugins.base import RegexBasedDetector

    class ApiKey(RegexBasedDetector):
        secret_type = "Mission Control API Key"  # noqa: S105  # what it is called
        denylist = (SECRET,)

    return ApiKey()


def _unread(path: str, why: str) -> dict[str, Any]:
    """What cannot be scanned is a doubt, never silence."""
    return {
        "scanner": "bandit",
        "rule": "unreadable",
        "level": "medium",
        "path": path,
        "line": 0,
        "end_line": 0,
        "message": f"the file could not be scanned: {why}",
        "fingerprint": "unreadable",
    }


def _is_harmless(value: str, line: str, detector: Any) -> bool:
    """Whether detect-secrets' own heuristics take a vague find for an id, a template, a variable or a counter."""
    from detect_secrets.filters import heuristic

    of_value: tuple[Any, ...] = (
        heuristic.is_sequential_string,
        heuristic.is_potential_uuid,
        heuristic.is_templated_secret,
        heuristic.is_prefixed_with_dollar_sign,
        heuristic.is_not_alphanumeric_string,
    )
    return (
        any(is_harmless(value) for is_harmless in of_value)
        or heuristic.is_likely_id_string(value, line, detector)
        or heuristic.is_indirect_reference(line)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
