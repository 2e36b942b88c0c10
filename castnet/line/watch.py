"""Images inspected as a camera drops them into a folder: what `castnet predict --watch` does."""

import contextlib
import fcntl
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import tee
from pathlib import Path

from castnet.errors import UserError
from castnet.imaging.decode import Photograph
from castnet.imaging.listing import list_images
from castnet.line.inspected import InspectedList, Version, version_of
from castnet.line.inspector import Inspector, Verdict
from castnet.line.predict import GOOD, TROUBLE, Record, code, printer, worst

POLL = 0.5  # seconds; a file that has not changed for as long may be complete
AT_ONCE = 1.0  # seconds within which two signals are one
PATIENCE = 10.0  # seconds that a file which cannot be read is given, for its writer may have paused

Waiting = Mapping[Path, tuple[Version, float]]  # what is not inspected yet, and since when it is as it is


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
    exit_code, waiting = GOOD, dict[Path, tuple[Version, float]]()
    unreadable: Mapping[Path, UserError] = {}
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_locked(folder))
        inspector = Inspector(model)
        told = _told_to_stop()
        inspected = stack.enter_context(contextlib.closing(InspectedList(folder)))
        recorder = stack.enter_context(record("watch", inspector)) if record else None
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
            inspected.forget(listing, now)
            waiting = {
                file: before[file] if file in before and before[file][0] == version else (version, now)
                for file, version in inspected.unjudged(listing.images).items()
            }
            for photograph, result in _judge_whole(inspector, waiting, now):
                file, (version, _) = photograph.path, waiting[photograph.path]
                digest = hashlib.sha256(photograph.content).hexdigest()
                if not inspected.has(file, version, digest):
                    show(file, result)
                    if recorder and isinstance(result, Verdict):
                        recorder.put_file(photograph, result)
                    exit_code = worst((exit_code, code(result)))
                if not inspected.add(file, version, digest):
                    exit_code = TROUBLE
                if told:
                    break
            time.sleep(POLL)
    if left := len(inspected.unjudged(list_images(folder).images)):
        print(
            f"{folder}: stopped with {left:,} images that are not judged; the next start judges them", file=sys.stderr
        )
        exit_code = TROUBLE
    return exit_code


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keep others from watching the folder within the block, by the descriptor that it yields.

    Raises:
        UserError: there is none, or another process watches it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make it, or name the one that the camera writes into")
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another `castnet predict --watch` is at work there; end that one first"
            ) from error
        yield lock
    finally:
        os.close(lock)


def _told_to_stop() -> list[float]:
    """When SIGINT or SIGTERM came, from now on; no Event, whose lock a signal may find taken by what it interrupts."""
    told: list[float] = []

    def stop(number: int, _: object) -> None:
        # Told once more, and not at once as by a shell and a terminal: it may be that nobody reads what it prints.
        if told and time.monotonic() - told[0] > AT_ONCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(time.monotonic())

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and a shell's `&` have it
            signal.signal(number, stop)
    return told


def _judge_whole(
    inspector: Inspector, waiting: Waiting, now: float
) -> Iterator[tuple[Photograph, Verdict | UserError]]:
    """Judge what nobody has written to since the folder was last looked at; what cannot be read may become whole."""
    unchanged = [file for file, (_, since) in waiting.items() if since < now]
    photographs, sources = tee(map(Photograph, unchanged))
    for photograph, result in zip(photographs, inspector.inspect_many(sources), strict=True):
        version, since = waiting[photograph.path]
        # Written to since it was listed. What looks at files as they are read may change the third number.
        if photograph.status and version_of(photograph.status)[:2] != version[:2]:
            continue
        if isinstance(result, UserError) and now - since < PATIENCE:
            continue
        yield photograph, result
