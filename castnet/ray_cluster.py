"""A Ray cluster to work on, this machine's own or another."""

import os
import signal
import socket
from typing import Any

import ray

from castnet.errors import UserError

PATIENCE = 5  # seconds for an address to answer


def connect(setting: str, address: str | None, **options: Any) -> None:
    """Connect this process to the cluster at an address, or to one of this machine alone.

    Args:
        setting: what names the address, for messages.
        address: as `ray.init` takes it, such as HOST:PORT or `auto`; None starts a cluster here.
        options: further arguments of `ray.init`.

    Raises:
        UserError: no cluster answers.
    """
    if ray.is_initialized():
        return
    obeyed = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host:  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised, and said once
        ray.init(address=address or "local", **options)
    except Exception as error:  # it raises many kinds
        raise UserError(f"{setting}={address}: no cluster answers ({error})") from error
    except SystemExit:  # by Ray's own handler, which it has by now
        signal.signal(signal.SIGTERM, obeyed)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, obeyed)
