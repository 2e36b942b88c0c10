"""What a user's mistake looks like: one line instead of a traceback."""

import sys
from typing import NoReturn


class UserError(Exception):
    """Something the user can mend: the message names it, what was expected and what to do.

    The entry points print the message on one line and exit with code 2.
    """


def fail(message: object) -> NoReturn:
    """Print one line that says what to mend on standard error, and exit with code 2."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)
