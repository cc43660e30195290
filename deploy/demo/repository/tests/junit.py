"""Runs the tests with the standard library alone and writes JUnit XML: python tests/junit.py REPORT."""

import sys
import time
import unittest
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree

REPORT = ElementTree.Element("testsuite", name="invoices")
Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class JunitResult(unittest.TextTestResult):
    """Keeps each test's outcome and time as an element of the report."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._begun = time.perf_counter()
        module, kind, name = test.id().rsplit(".", 2)
        where = {"file": f"tests/{module}.py", "classname": kind, "name": name}
        self._case = ElementTree.SubElement(REPORT, "testcase", where)

    def stopTest(self, test: unittest.TestCase) -> None:
        self._case.set("time", f"{time.perf_counter() - self._begun:.4f}")
        super().stopTest(test)

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:
        super().addFailure(test, err)
        ElementTree.SubElement(self._case, "failure", message=str(err[1]))

    def addError(self, test: unittest.TestCase, err: Error) -> None:
        super().addError(test, err)
        ElementTree.SubElement(self._case, "error", message=str(err[1]))


def main() -> None:
    """Run all tests; exit code 1 if any fails."""
    sys.path.insert(0, str(Path.cwd()))
    suite = unittest.defaultTestLoader.discover("tests")
    result = unittest.TextTestRunner(verbosity=2, resultclass=JunitResult).run(suite)
    ElementTree.ElementTree(REPORT).write(sys.argv[1], encoding="utf-8")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
