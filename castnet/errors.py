"""What a user's mistake looks like: one line instead of a traceback."""

import gc
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO

# Text that is the same to Hydra and to a shell.
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)\Z)(?:[a-z]|\.{0,2}/)[\w./-]*", re.ASCII | re.IGNORECASE)


class UserError(Exception):
    """Something the user can mend: the message names it, what was expected and what to do.

    The entry points print the message on one line and exit with code 2.
    """


def printable(text: object) -> str:
    """Text on one line that moves no cursor: what cannot be printed becomes escapes, so that names stay different.

    Names of files may hold line breaks, terminal codes, marks that turn the direction of writing, and bytes that are no
    text at all.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def willing(stream: TextIO | None) -> TextIO:
    """A stream that takes what the terminal's encoding lacks, as escapes; one that the shell closed leads nowhere."""
    if stream is None:
        return open(os.devnull, "w", errors="backslashreplace")
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


class _Told(TextIOWrapper):
    """Text beside the results: where nobody can read it, as after a terminal was closed, work goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def telling(stream: TextIO | None) -> TextIO:
    """Standard error as `willing` has it, into which nothing fails to be written."""
    stream = willing(stream)
    try:
        file = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115
    except OSError:  # no file, but what a test or a notebook reads
        return stream
    return _Told(file, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def fail(message: object) -> NoReturn:
    """Print one line that says what to mend on standard error, and exit with code 2."""
    with suppress(OSError):  # where nothing can be printed, the code still tells
        # What libraries say may have several lines; within one, blanks may be of a name.
        line = " ".join(filter(None, map(str.strip, str(message).split("\n"))))
        print(f"error: {printable(line)}", file=sys.stderr, flush=True)
    drop_output()
    sys.exit(2)


def or_exit(*mistakes: type[Exception]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A callback's hook that ends the program by what goes wrong, of which Hydra would make a warning.

    Args:
        mistakes: what is told in one line, with exit code 2; all else keeps its traceback and becomes exit code 70.
    """

    def ending(hook: Callable[..., None]) -> Callable[..., None]:
        @wraps(hook)
        def hooked(*arguments: Any, **named: Any) -> None:
            try:
                hook(*arguments, **named)
            except mistakes as error:
                fail(error)
            except Exception:
                traceback.print_exc()
                sys.exit(os.EX_SOFTWARE)

        return hooked

    return ending


def written(key: str, value: object) -> str:
    """A setting as it can be pasted into a command line, whatever its text holds."""
    text = str(value)
    # Else Hydra and the shell would each read something into it, Hydra a number or none where a name looks like that.
    if not PLAIN.fullmatch(text):
        text = '"' + re.sub(r'\\+(?="|\Z)', r"\g<0>\g<0>", text).replace('"', '\\"') + '"'
    return shlex.quote(f"{key}={text}")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra of pyproject.toml brings; where it is not installed, say so and exit with code 2.

    Ctrl-C ends a script that is still importing without a traceback, as it does any program. What is imported stays, so
    neither now nor later is it gone through for garbage: a third of the time that a script takes to start.
    """
    collects = gc.isenabled()
    gc.disable()
    heeds = signal.getsignal(signal.SIGINT) == signal.default_int_handler
    if heeds := heeds and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "castnet").startswith("castnet"):
            raise
        fail(f"{error.name} is not installed here; `pip install 'castnet[{name}]'` brings what this command needs")
    finally:
        if collects:
            gc.freeze()
            gc.enable()
        if heeds:
            signal.signal(signal.SIGINT, signal.default_int_handler)


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
