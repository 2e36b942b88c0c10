"""What `castnet app` does: start the page."""

import os
import socket
import sys
from pathlib import Path

from castnet.errors import UserError

PAGE = Path(__file__).with_name("page.py")
UPLOAD_MB = 20  # of one file
COLOURS = {"primaryColor": "#2f6db5", "textColor": "#1b2a3a", "secondaryBackgroundColor": "#f3f5f8"}


def launch(model: Path, host: str, port: int) -> int:
    """Start the page; this process becomes its server and does not return.

    Args:
        model: what `castnet export` wrote.
        host: address to listen on.
        port: port to listen on.

    Raises:
        UserError: there is no such model, or the address cannot be listened on.
    """
    if not model.is_file():
        raise UserError(f"{model}: no such file; `castnet export RUN -o {model}` makes one of a training run")
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port}: cannot be listened on ({error}); name another --host or --port") from error
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",  # asks no questions on its first start
        "server.fileWatcherType": "none",
        "server.maxUploadSize": UPLOAD_MB,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "theme.base": "light",
        **{f"theme.{name}": colour for name, colour in COLOURS.items()},
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags, "--", str(model)])
