"""The `castnet` command: how it ends."""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from castnet.commands import parse
from castnet.errors import UserError, drop_output, fail, telling, willing
from castnet.signals import Interrupted, obeying_signals


def _end_by_interrupt() -> NoReturn:
    """End as if Ctrl-C had not been caught, so that a shell's loop ends too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(128 + signal.SIGINT)


def main() -> None:
    """Run a command; only its own return ends it with 0 or 1, which are verdicts, and no exception does."""
    sys.stdout, sys.stderr = willing(sys.stdout), telling(sys.stderr)
    with obeying_signals(Interrupted) as told:
        try:
            args = parse()
            code: int = args.run(args)
            sys.stdout.flush()
        except UserError as error:
            if not told:
                fail(error)
            with suppress(SystemExit):
                fail(error)  # how `castnet generate` goes on
            _end_by_interrupt()
        except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
            drop_output()
            sys.exit(2)
        except SystemExit as stop:
            if stop.code != 1:
                raise
            drop_output()  # rich's consoles end a program with 1 where nobody reads what they print
            sys.exit(2)
        except KeyboardInterrupt:
            _end_by_interrupt()
        except OSError as error:
            fail(f"{error.filename or 'output'}: {error.strerror or error}")
        except MemoryError:
            fail("the memory does not suffice")
        except Exception as error:
            if told:  # of which a library that was being imported made another exception
                _end_by_interrupt()
            if sys.flags.dev_mode:
                sys.excepthook(type(error), error, error.__traceback__)
            fail(
                f"{type(error).__name__}: {error}; this is a mistake of castnet's own, please report it "
                "(PYTHONDEVMODE=1 shows where)"
            )
    sys.exit(code)


if __name__ == "__main__":
    main()
