"""Folders that one process at a time works in, files that are whole, and what killed processes leave behind."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from castnet.errors import UserError


class HeldError(UserError):
    """Another process is at work in a folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder to this process until it leaves the block or dies; the folder is made if missing.

    The lock is the kernel's (flock on the folder itself), so that a killed process leaves none behind. A folder that is
    still empty in the end is removed.

    Raises:
        HeldError: another process holds the folder.
        OSError: it cannot be made or opened.
    """
    try:
        descriptor = _made(folder)
    except (FileExistsError, FileNotFoundError):  # another process may have removed it in the very moment, empty
        descriptor = _made(folder)
    try:
        _lock(descriptor, folder)
        try:
            yield
        finally:
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()):  # and not one that has its name by now
                    folder.rmdir()
    finally:
        os.close(descriptor)


def _made(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is in a block like this one; where a file system has no locks, there is no waiting.

    Args:
        folder: exists; what is done in turn is done there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have given it another name in the meantime.
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise HeldError(f"{folder}: another run is at work there; wait until it has ended, or name another folder")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside this one, of this process alone, which takes its name if the block ends well.

    It is made before the block is entered: a folder that takes no file is found before the work, not after.

    Raises:
        UserError: it cannot be written.
    """
    partial = _beside(path)
    try:
        partial.touch()
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder that takes one"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial-{os.getpid()}")


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write all files or, where the disk is full, none; each takes its name when it is whole.

    Raises:
        OSError: they cannot be written.
    """
    begun = {path: _beside(path) for path in contents}
    try:
        for path, content in contents.items():
            try:
                begun[path].write_bytes(content)
            except OSError as error:
                error.filename = str(path)  # which a full disk does not name
                raise
        for path, partial in begun.items():
            partial.replace(path)
    finally:
        for partial in begun.values():
            with suppress(OSError):  # else it would be told in the place of what went wrong
                partial.unlink(missing_ok=True)


def claim(file: IO[bytes], size: int) -> None:
    """Make a file so long and have the disk keep room for it: writing to a mapping without room ends the process.

    Raises:
        OSError: there is no room.
    """
    os.ftruncate(file.fileno(), size)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(file.fileno(), 0, size)


def lock(file: IO[bytes]) -> None:
    """Let other processes see that this one is writing a file; where a file system has no locks, they cannot."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove files that dead processes were writing.

    Args:
        folder: where to look.
        pattern: of files whose names end with `-` and the number of the process that writes them, and that it may lock.
    """
    for path in folder.glob(pattern):
        # The number alone does not tell: it may have been given anew, or belong to another container.
        with suppress(OSError, ValueError), path.open("rb") as file:
            if not _is_alive(int(path.name.rpartition("-")[2])):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # of an earlier life: this process has not begun to write
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
