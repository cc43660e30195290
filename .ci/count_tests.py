"""Says how many tests of each folder ran, from a JUnit file; ends with 1 if a folder ran none."""

import sys
from collections import Counter
from pathlib import Path

from defusedxml.ElementTree import parse

TESTS = Path(__file__).resolve().parents[1] / "tests"


def ran(junit: str) -> Counter[str]:
    """Test cases per folder of `tests/`, without the skipped ones."""
    cases = (case for case in parse(junit).iter("testcase") if case.find("skipped") is None)
    return Counter(case.get("classname", "").split(".")[1] for case in cases)


def folders() -> list[str]:
    """Every folder that should hold tests."""
    return sorted(
        path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0] not in "._" and path.name != "fixtures"
    )


def main() -> int:
    """Print the table."""
    counts = ran(sys.argv[1])
    for folder in folders():
        sys.stdout.write(f"{counts[folder]:6} {folder}\n")
    empty = [folder for folder in folders() if not counts[folder]]
    if empty:
        sys.stderr.write(f"no test ran in: {', '.join(empty)}\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
