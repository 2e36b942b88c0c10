"""The list of a watched folder's images that were inspected, which lies in that folder."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from castnet.errors import UserError
from castnet.imaging.decode import open_file
from castnet.imaging.listing import Listing
from castnet.line.spool import Spool

STATE = ".castnet-inspected"
# Images that are away for so many seconds are forgotten, once they are so many and more than those that are there. Of a
# folder that comes back before, such as one of another machine's, none is judged again.
AWAY, FORGOTTEN = 3600.0, 1000

# Size in bytes, and times in nanoseconds: of modification, which `cp -p` takes over from another file, and of any
# change, of permissions or links too.
Version = tuple[int, int, int]
Entry = tuple[Version, str]  # and the SHA-256 of what was judged


class InspectedList:
    """Which images of a folder were inspected, and as what; it outlives the process.

    Args:
        folder: holds the list as `.castnet-inspected`, which is made if it is not there.

    Raises:
        UserError: that file is not castnet's, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._entries = folder, _read(folder)
        self._away: dict[Path, float] = {}  # what was inspected and is not there, and since when
        self._is_full = False
        try:
            self._lines = Spool(folder / STATE)
        except OSError as error:
            raise UserError(
                f"{folder}: the list of what was judged, {STATE}, cannot be written there ({error.strerror}); let "
                "castnet write there, or watch another folder"
            ) from error

    def unjudged(self, files: Iterable[Path]) -> dict[Path, Version]:
        """Those of the files that were not inspected as they are now, and how they are."""
        return {
            file: now
            for file, now in _versions(files).items()
            if file not in self._entries or self._entries[file][0] != now
        }

    def has(self, file: Path, version: Version, digest: str) -> bool:
        """Whether this content was inspected there before, of the same size and time of modification."""
        before, known = self._entries.get(file, ((0, 0, 0), ""))
        return (before[:2], known) == (version[:2], digest)

    def add(self, file: Path, version: Version, digest: str) -> bool:
        """Note that a file was inspected; whether the list on disk takes it. That it does not is told once."""
        self._entries[file] = version, digest
        try:
            self._lines.keep()
            self._lines.append(_line(self._folder, file, self._entries[file]))
        except OSError as error:
            if not self._is_full:
                print(
                    f"{self._lines.path}: takes no more ({error.strerror}): verdicts go on, and what is judged "
                    "meanwhile is judged again by the next start",
                    file=sys.stderr,
                )
            self._is_full = True
            return False
        return True

    def forget(self, there: Listing, now: float) -> None:
        """Forget what has been away for long, see `AWAY`, at a time in seconds that no clock sets back."""
        missing: set[Path] = set()
        if not there.unreadable and len(self._entries) > len(there.images):
            missing = self._entries.keys() - set(there.images)
        self._away = {file: self._away.get(file, now) for file in missing}
        gone = {file for file, since in self._away.items() if now - since >= AWAY}
        if len(gone) > len(there.images) + FORGOTTEN:
            self._entries = {file: entry for file, entry in self._entries.items() if file not in gone}
            with contextlib.suppress(OSError):  # the longer list does as well
                self._lines.replace(_line(self._folder, file, entry) for file, entry in self._entries.items())

    def close(self) -> None:
        """Leave the list to whoever watches next."""
        self._lines.close()


def version_of(status: os.stat_result) -> Version:
    """How a file is."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _versions(files: Iterable[Path]) -> dict[Path, Version]:
    versions = {}
    for file in files:
        with contextlib.suppress(OSError):  # taken away since it was listed
            versions[file] = version_of(file.stat())
    return versions


def _line(folder: Path, file: Path, entry: Entry) -> bytes:
    version, digest = entry
    return json.dumps([str(file.relative_to(folder)), *version, digest]).encode() + b"\n"


def _read(folder: Path) -> dict[Path, Entry]:
    """The images inspected before, with the list on disk brought into today's form, without what was left half written.

    Those that are gone now may come back, see `AWAY`.

    Raises:
        UserError: the file is not castnet's.
    """
    state = folder / STATE
    entries: dict[Path, Entry] = {}
    lines: list[bytes] = []
    try:
        with open_file(state, sys.maxsize) as file:
            # A line without an end was being written when the machine failed.
            lines = [line for line in file if line.endswith(b"\n")]
        for name, size, modified, *others in map(json.loads, lines):
            image = folder / name
            if not others and (now := _versions([image])):  # lists once said no more
                others = now[image][2], ""
            if others:
                image.relative_to(folder)  # or it is no entry of this list
                changed, digest = others
                entries[image] = (size, modified, changed), digest
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{state}: is not castnet's list ({error}); without it all images are judged anew") from error
    partial = folder / f"{STATE}.partial"
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.writelines(_line(folder, image, entry) for image, entry in entries.items())
        partial.replace(state)
    except OSError:  # a full disk, on which the longer list does as well, as far as its lines have ends
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
            os.truncate(state, sum(map(len, lines)))
    return entries
