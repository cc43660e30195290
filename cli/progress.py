"""How far a long command is: one line on a terminal, which goes away at its end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(*, beside: object = True) -> Iterator[Callable[[str], None]]:
    """Tell how far it is on standard error, where that is a terminal; elsewhere nothing is told.

    Where nothing stands `beside` it, the answer itself goes to standard output: on a terminal they would get mixed up.
    """
    from rich.text import Text

    from cli.text import console

    shown = console(stderr=True)
    if not shown.is_terminal or (sys.stdout.isatty() and not beside):
        yield lambda _: None
        return
    with shown.status(Text("")) as status:
        yield lambda text: status.update(Text(text))
