"""What `castnet app` becomes: Streamlit's server, which Ctrl-C ends at any time."""

import signal
from contextlib import suppress
from typing import Any

# Until Streamlit heeds Ctrl-C itself, it ends the process as it ends any: Python's own way would be a traceback, and
# exit code 1. `launch` has it wait for this line.
if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # and not ignored, as `nohup` would have it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

from streamlit import cli_util  # noqa: E402
from streamlit.web.cli import main  # noqa: E402

print_to_cli = cli_util.print_to_cli


def print_if_read(*message: Any, **style: Any) -> None:
    with suppress(OSError):
        print_to_cli(*message, **style)


# Streamlit says that it stops before it does. Where nobody reads that, a closed terminal or pipe, it would go on.
cli_util.print_to_cli = print_if_read
main()
