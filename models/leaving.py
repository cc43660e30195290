"""Ends a process that may have used Temporal's SDK, with the exit code of its work."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

FAILED, NOT_WRITTEN, INTERRUPTED = 1, 120, 130
"""Python's exit codes for an error that nobody caught and for output that could not be written at the end, and the
shell's for an interrupt."""


def leave_after(work: Callable[[], object]) -> NoReturn:
    """Do the work of an entry point, and leave past the interpreter's own end.

    The SDK's threads go on as long as the process does. One that hands over an answer while the interpreter is taken
    down aborts the process, with a signal for an exit code: about one of twenty starts without Temporal ended so
    (temporalio/sdk-python issue 300). What is to be tidied up is so before the work ends, in `with` blocks.
    """
    code = _code_of(work)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream:  # a closed one is none
                stream.flush()
    except Exception:
        code = code or NOT_WRITTEN
    os._exit(code)


def _code_of(work: Callable[[], object]) -> int:
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201  # as Python itself does
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return FAILED
    return 0
