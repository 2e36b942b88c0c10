"""Images inspected as a camera drops them into a folder: what `castnet predict --watch` does."""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import tee
from pathlib import Path

from castnet.errors import UserError
from castnet.imaging.decode import Photograph, open_file
from castnet.imaging.listing import list_images
from castnet.line.inspector import Inspector, Verdict
from castnet.line.predict import GOOD, TROUBLE, Record, code, printer, worst
from castnet.line.spool import Spool

STATE = ".castnet-inspected"
POLL = 0.5  # seconds; a file that has not changed for as long may be complete
# Images that are away for so many seconds are forgotten, once they are so many and more than those that are there. Of a
# folder that comes back before, such as one of another machine's, none is judged again.
AWAY, FORGOTTEN = 3600.0, 1000
AT_ONCE = 1.0  # seconds within which two signals are one
PATIENCE = 10.0  # seconds that a file which cannot be read is given, for its writer may have paused

# Size in bytes, and times in nanoseconds: of modification, which `cp -p` takes over from another file, and of any
# change, of permissions or links too.
Version = tuple[int, int, int]
Inspected = tuple[Version, str]  # and the SHA-256 of what was judged


def watch(model: Path, folder: Path, form: str, record: Record | None = None) -> int:
    """Print a verdict for every image that is in a folder or comes into it, until interrupted or terminated.

    Which images were inspected stands in the folder's `.castnet-inspected`, so that each is inspected once, also after
    a restart; one that is overwritten counts as new, also by another of the same size and time. An entry is written
    after its verdict: if the machine fails between the two, or the disk is full, the image is inspected again rather
    than never. A file that is still being written is waited for, and one that cannot be read 10 s after its last change
    is reported as such.

    Args:
        model: what `castnet export` wrote.
        folder: searched in depth.
        form: `table`, `json` or `csv`, see `castnet.line.predict.predict`.
        record: what keeps the verdicts, if anything does.

    Returns:
        Exit code, as of `castnet.line.predict.predict`; an image that is not judged yet counts as one not read.

    Raises:
        UserError: no such model or folder, another process watches the folder, its list is not castnet's, or it is
            removed or replaced while it is watched.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make it, or name the one that the camera writes into")
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another `castnet predict --watch` is at work there; end that one first") from error
    inspector = Inspector(model)
    told: list[float] = []  # when; no Event, whose lock a signal may find taken by what it interrupts

    def stop(number: int, _: object) -> None:
        # Told once more, and not at once as by a shell and a terminal: it may be that nobody reads what it prints.
        if told and time.monotonic() - told[0] > AT_ONCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(time.monotonic())

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and a shell's `&` have it
            signal.signal(number, stop)
    exit_code = GOOD
    done = _read_state(folder)
    try:
        written = Spool(folder / STATE)
    except OSError as error:
        raise UserError(
            f"{folder}: the list of what was judged, {STATE}, cannot be written there ({error.strerror}); let castnet "
            "write there, or watch another folder"
        ) from error
    waiting: dict[Path, tuple[Version, float]] = {}  # what is not inspected yet, and since when it is as it is
    unreadable: dict[Path, UserError] = {}
    away: dict[Path, float] = {}  # what was judged and is not there, and since when
    recording = record("watch", inspector) if record else contextlib.nullcontext()
    is_full = False
    with contextlib.closing(written) as state, recording as recorder:
        show = printer(form)  # which prints a header, if nothing was refused
        while not told:
            now, before = time.monotonic(), waiting
            listing = list_images(folder)
            # Where the folder is another than the locked one, its list is, too, and nobody else is kept out.
            if not folder.exists() or not os.path.samestat(os.fstat(lock), folder.stat()):
                raise UserError(f"{folder}: was removed or replaced while it was watched; start anew when it is there")
            for file in listing.unreadable.keys() - unreadable.keys():
                show(file, listing.unreadable[file])
                exit_code = TROUBLE
            unreadable = listing.unreadable
            missing = done.keys() - set(listing.images) if not unreadable and len(done) > len(listing.images) else set()
            away = {file: away.get(file, now) for file in missing}
            gone = {file for file, since in away.items() if now - since >= AWAY}
            if len(gone) > len(listing.images) + FORGOTTEN:
                done = {file: inspected for file, inspected in done.items() if file not in gone}
                with contextlib.suppress(OSError):  # the longer list does as well
                    state.replace(_entry(folder, file, inspected) for file, inspected in done.items())
            waiting = {
                file: before[file] if file in before and before[file][0] == version else (version, now)
                for file, version in _unjudged(listing.images, done).items()
            }
            unchanged = [file for file, (_, since) in waiting.items() if since < now]
            photographs, sources = tee(map(Photograph, unchanged))
            for photograph, result in zip(photographs, inspector.inspect_many(sources), strict=True):
                file = photograph.path
                version, since = waiting[file]
                # Written to since it was listed. What looks at files as they are read may change the third number.
                if photograph.status and _version(photograph.status)[:2] != version[:2]:
                    continue
                if isinstance(result, UserError) and now - since < PATIENCE:
                    continue
                (size, modified, _), known = done.get(file, ((0, 0, 0), ""))
                digest = hashlib.sha256(photograph.content).hexdigest()
                if (size, modified, known) != (*version[:2], digest):
                    show(file, result)
                    if recorder and isinstance(result, Verdict):
                        recorder.put_file(photograph, result)
                    exit_code = worst((exit_code, code(result)))
                done[file] = version, digest
                try:
                    state.keep()
                    state.append(_entry(folder, file, done[file]))
                except OSError as error:
                    if not is_full:
                        print(
                            f"{state.path}: takes no more ({error.strerror}): verdicts go on, and what is judged "
                            "meanwhile is judged again by the next start",
                            file=sys.stderr,
                        )
                    is_full, exit_code = True, TROUBLE
                if told:
                    break
            time.sleep(POLL)
        left = len(_unjudged(list_images(folder).images, done))
    os.close(lock)
    if left:
        print(
            f"{folder}: stopped with {left:,} images that are not judged; the next start judges them", file=sys.stderr
        )
        exit_code = TROUBLE
    return exit_code


def _versions(files: Iterable[Path]) -> dict[Path, Version]:
    versions = {}
    for file in files:
        with contextlib.suppress(OSError):  # taken away since it was listed
            versions[file] = _version(file.stat())
    return versions


def _version(status: os.stat_result) -> Version:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unjudged(files: Iterable[Path], done: Mapping[Path, Inspected]) -> dict[Path, Version]:
    """Those of the files that were not inspected as they are now."""
    return {file: now for file, now in _versions(files).items() if file not in done or done[file][0] != now}


def _entry(folder: Path, file: Path, inspected: Inspected) -> bytes:
    version, digest = inspected
    return json.dumps([str(file.relative_to(folder)), *version, digest]).encode() + b"\n"


def _read_state(folder: Path) -> dict[Path, Inspected]:
    """The images inspected before; those that are gone now may come back, see `AWAY`."""
    state = folder / STATE
    done: dict[Path, Inspected] = {}
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
                done[image] = (size, modified, changed), digest
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{state}: is not castnet's list ({error}); without it all images are judged anew") from error
    partial = folder / f"{STATE}.partial"
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.writelines(_entry(folder, image, inspected) for image, inspected in done.items())
        partial.replace(state)
    except OSError:  # a full disk, on which the longer list does as well, as far as its lines have ends
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
            os.truncate(state, sum(map(len, lines)))
    return done
