"""What `castnet app` becomes: Streamlit's server, which Ctrl-C ends at any time."""

import signal

# Until Streamlit heeds Ctrl-C itself, it ends the process as it ends any: Python's own way would be a traceback, and
# exit code 1. `launch` has it wait for this line.
if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # and not ignored, as `nohup` would have it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

from streamlit.web.cli import main  # noqa: E402

main()
