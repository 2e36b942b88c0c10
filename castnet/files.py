"""Folders that one process at a time may work in."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from castnet.errors import UserError


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder to this process until it leaves the block or dies; the folder is made if missing.

    The lock is the kernel's (flock on the folder itself), so that a killed process leaves none behind. A folder that is
    still empty in the end is removed.

    Raises:
        UserError: another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have given it another name in the meantime.
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise UserError(f"{folder}: another run is at work there; wait until it has ended, or name another folder")
