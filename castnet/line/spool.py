"""Lines in a file that outlives whoever writes it, for someone else to fetch, such as whoever writes a record."""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK = 2**21  # bytes that are fetched at once


class Spool:
    """A file that one process appends lines to while a thread of its own fetches them in their order.

    Nobody else takes the file as long as that process lives; its lock ends with it. If somebody removes it meanwhile,
    all goes on but that nobody else finds it, until `keep` gives it its name again.

    Args:
        path: is made if it is not there.
        head: a line that the file begins with whenever it has lines.

    Attributes:
        taken: whether this process has it; if not, another one does, and nothing else may be done with it.
        fetched: bytes that were fetched and are no longer needed, see `read`.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, head: bytes = b"") -> None:
        self.path, self.taken, self.fetched, self._head = path, True, 0, head
        self._file, self._lock = path.open("a+b", buffering=0), threading.RLock()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.taken = False
            self._file.close()

    def size(self) -> int:
        """Bytes that the file has."""
        with self._lock:
            return os.fstat(self._file.fileno()).st_size

    def append(self, line: bytes) -> None:
        """Append a line that ends with a line feed: all of it, or nothing.

        Raises:
            OSError: the disk has no room for it.
        """
        with self._lock:
            end = self.size()
            line = line if end else self._head + line
            try:
                while line:  # a disk that is nearly full takes the beginning
                    line = line[self._file.write(line) or 0 :]
            except OSError:
                self._file.truncate(end)
                raise

    def keep(self) -> None:
        """Make the file anew, with all that it had, if somebody removed it.

        Raises:
            OSError: the disk has no room for it, or its folder is gone.
        """
        with self._lock:
            if not os.fstat(self._file.fileno()).st_nlink:
                self._replace(self._chunks())

    def replace(self, lines: Iterable[bytes]) -> None:
        """Have other lines in the file, all of them fetched again, or leave it as it is.

        Raises:
            OSError: the disk has no room for them.
        """
        with self._lock:
            self._replace(lines)
            self.fetched = 0

    def _chunks(self) -> Iterator[bytes]:
        at = 0
        while chunk := os.pread(self._file.fileno(), CHUNK, at):
            at += len(chunk)
            yield chunk

    def _replace(self, chunks: Iterable[bytes]) -> None:
        partial = self.path.with_name(f"{self.path.name}.partial")
        file = partial.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            for chunk in chunks:
                while chunk:
                    chunk = chunk[file.write(chunk) or 0 :]
            partial.replace(self.path)
        except OSError:
            file.close()
            partial.unlink(missing_ok=True)
            raise
        self._file, old = file, self._file
        old.close()

    def read(self) -> bytes:
        """The next lines that were not fetched yet, about `CHUNK` bytes of them; a line without an end is none.

        They come again until `fetched` is moved beyond them, and once more in the next process's hands.
        """
        wanted = CHUNK
        while True:
            with self._lock:
                chunk = os.pread(self._file.fileno(), wanted, self.fetched)
            if (whole := chunk.rfind(b"\n") + 1) or len(chunk) < wanted:
                return chunk[:whole]
            wanted *= 2

    def empty(self) -> bool:
        """Empty the file if all of its lines were fetched; whether it is empty now."""
        with self._lock:
            if self.fetched == self.size():
                self._file.truncate(0)
                self.fetched = 0
            return self.size() == 0

    def remove(self) -> None:
        """Remove the file, lines and all, and leave it."""
        self.path.unlink(missing_ok=True)  # its writer removed it after it was opened here
        self.close()

    def close(self) -> None:
        """Leave the file to whoever takes it next."""
        self._file.close()
