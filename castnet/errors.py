"""What a user's mistake looks like: one line instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class UserError(Exception):
    """Something the user can mend: the message names it, what was expected and what to do.

    The entry points print the message on one line and exit with code 2.
    """


def fail(message: object) -> NoReturn:
    """Print one line that says what to mend on standard error, and exit with code 2."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
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
