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
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host:  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised, and said once
        obeyed = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address or "local", **options)
        finally:
            signal.signal(signal.SIGTERM, obeyed)  # Ray's own makes another exit of it, and aborts later
    except SystemExit:
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:  # it raises many kinds
        raise UserError(f"{setting}={address}: no cluster answers ({error})") from error
