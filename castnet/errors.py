"""What a user's mistake looks like: one line instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


class UserError(Exception):
    """Something the user can mend: the message names it, what was expected and what to do.

    The entry points print the message on one line and exit with code 2.
    """


def printable(text: object) -> str:
    """Text on one line that moves no cursor: white space becomes a space, other control characters escapes.

    Names of files may hold line breaks, terminal codes, marks that turn the direction of writing, and bytes that are no
    text at all.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def fail(message: object) -> NoReturn:
    """Print one line that says what to mend on standard error, and exit with code 2."""
    with suppress(OSError):  # where nothing can be printed, the code still tells
        print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    drop_output()
    sys.exit(2)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra of pyproject.toml brings; where it is not installed, say so and exit with code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "castnet").startswith("castnet"):
            raise
        fail(f"{error.name} is not installed here; `pip install 'castnet[{name}]'` brings what this command needs")


def drop_output() -> None:
    """Let what was printed and not yet written go: Python would try again at its end and replace the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or a stream without a file
            stream.flush()
            continue
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
