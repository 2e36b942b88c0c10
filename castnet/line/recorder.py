"""Every verdict on record: written behind the line's back, lost by no fault of the database, written once."""

import binascii
import hashlib
import json
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from castnet.database import shown
from castnet.errors import UserError, printable
from castnet.imaging.decode import Photograph, read_file
from castnet.line.inspector import Inspector, Verdict
from castnet.line.record import engine_for, images, insert_new, make_tables, models, reviews, verdicts
from castnet.line.spool import Spool

KEEP = {"none": (), "unsure": ("unsure",), "rejected": ("unsure", "defective"), "all": ("unsure", "defective", "good")}
FLUSH_SECONDS, RETRY_SECONDS = 0.5, 2.0
SPOOL = Path(".castnet-spool")
COLUMNS, CARD = set(verdicts.c.keys()), set(models.c.keys())
FORGOTTEN = 1000  # images that are forgotten at once
DAY = 86_400  # seconds by which the clocks of a record's machines may differ


class Recorder:
    """Takes verdicts and writes them by a thread of its own; a verdict waits for one line appended to a file.

    That file, the spool, is read back by the thread and emptied when the database has all of it; it begins with the
    model's card, since whoever replays it may judge by another model. Where the database is
    away it grows, and is replayed when the database is back, by this process or by the next one. Every verdict has a
    number of its own, so that one written twice stands there once. Verdicts go on where neither can be written; what
    is not recorded then is told on standard error, as is whatever has to wait.

    Args:
        url: of the database, see `engine_for`.
        source: who judges: predict, watch, serve, page or shadow.
        inspector: whose verdicts they are.
        keep: which images are kept beside their verdicts, a key of `KEEP`.
        keep_bytes: how many bytes the images kept may have; beyond, the oldest go, but for those that people decided
            on. A spool of as many bytes takes no more images.
        spool: folder of spools; one line's processes share it.

    Raises:
        UserError: see `engine_for`, or the spool cannot be written.
    """

    def __init__(
        self,
        url: str,
        source: str,
        inspector: Inspector,
        keep: str = "none",
        keep_bytes: int = 1_000_000_000,
        spool: Path = SPOOL,
    ) -> None:
        self._engine, self._source, self._keep, self._keep_bytes = engine_for(url), source, KEEP[keep], keep_bytes
        self._card = {"model": inspector.digest, "card": json.dumps(inspector.card), "since": time.time()}
        folder = spool_for(self._engine.url, spool)
        try:
            left = [Spool(path) for path in sorted(folder.glob("*.jsonl"))]
            self._own = Spool(folder / f"{uuid.uuid4().hex}.new", json.dumps(self._card).encode() + b"\n")
            # Only now that it is locked may another process find it.
            self._own.path = self._own.path.rename(self._own.path.with_suffix(".jsonl"))
        except OSError as error:
            raise UserError(f"{spool}: cannot be written ({error.strerror})") from error
        self._left = [spool for spool in left if spool.taken]
        self._has_tables = self._full = self._forgets = False
        self._lost_verdicts = self._lost_images = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def put_file(self, photograph: Photograph, verdict: Verdict) -> None:
        """Record one verdict on a file.

        One that another machine read is read here; if it is gone by now it has no digest.
        """
        content = photograph.content
        with suppress(OSError):
            content = content or read_file(photograph.path)
        self.put(str(photograph.path), content, verdict)

    def put(self, name: str, content: bytes, verdict: Verdict) -> None:
        """Record one verdict on the image in a file's bytes."""
        row = {
            "id": uuid.uuid4().hex,
            "time": time.time(),
            "source": self._source,
            # No database takes what is no text, as names of files may be.
            "name": name.encode(errors="backslashreplace").decode().replace("\0", "\\0"),
            "image": hashlib.sha256(content).hexdigest() if content else "",
            "model": self._card["model"],
            "p_defect": verdict.p_defect,
            "unfamiliarity": verdict.unfamiliarity,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "latency_ms": verdict.latency_ms,
        }
        line = json.dumps(row).encode()
        keeps = bool(content) and verdict.verdict in self._keep
        has_room = keeps and self._own.size() < self._keep_bytes
        kept = has_room and self._append(line + b"\t" + binascii.b2a_base64(content))
        recorded = kept or self._append(line + b"\n")
        with self._lock:
            self._lost_images += keeps and not kept
            self._lost_verdicts += not recorded

    def _append(self, line: bytes) -> bool:
        try:
            self._own.append(line)
        except OSError as error:
            with self._lock:
                full, self._full = self._full, True
            if not full:
                reason = f"takes no more ({error.strerror}): verdicts go on, and what finds no room is lost"
                _say(f"{self._own.path} {reason}")
            return False
        return True

    def _keep_spool(self) -> None:
        """Have the spool where it is said to be, whoever tidied up there."""
        self._own.path.parent.mkdir(parents=True, exist_ok=True)
        self._own.keep()

    def close(self) -> None:
        """Write what is left, if the database takes it; the rest stays in the spool."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(timeout=30)
        if self._lost_verdicts or self._lost_images:
            _say(
                f"{self._lost_verdicts:,} verdicts and {self._lost_images:,} images found no room and are not recorded"
            )
        if self._thread.is_alive() or not self._own.empty():
            with suppress(OSError):  # of a disk that is full it was told
                self._keep_spool()
            _say(f"verdicts wait in {self._own.path}, to be written when something records there again")
        else:
            self._own.remove()
        if self._thread.is_alive():
            return
        self._engine.dispose()  # SQLite then has all of it in the one file that people copy
        for spool in [self._own, *self._left]:
            spool.close()  # which unlocks it for who replays it

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        waiting = FLUSH_SECONDS
        while True:
            stopping = self._stop.wait(waiting)
            with suppress(OSError):  # without a name it holds what this process writes all the same
                self._keep_spool()
            try:
                self._drain()
                waiting = FLUSH_SECONDS
            except Exception as error:  # whatever it is: verdicts go on, and it is tried again
                if waiting == FLUSH_SECONDS:
                    reason = str(error).splitlines()[0][:160]
                    _say(f"{shown(self._engine.url)} cannot be written ({reason}): verdicts wait in {self._own.path}")
                waiting = RETRY_SECONDS
            if stopping:
                return

    def _drain(self) -> None:
        while self._left:
            self._replay(self._left[0])
            self._left.pop(0).remove()
        self._replay(self._own)

    def _replay(self, spool: Spool) -> None:
        while not spool.empty():
            fetched = spool.read()
            if not fetched:  # the machine failed while it wrote what is left
                return
            lines = fetched.split(b"\n")[:-1]
            rows = [row for row in map(_row, lines) if row]
            if len(rows) < len(lines):
                _say(f"{len(lines) - len(rows):,} verdicts in {spool.path} are damaged, and not recorded")
            if rows:
                self._write(rows)
            spool.fetched += len(fetched)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        cards = [row for row in rows if "card" in row]
        rows = [row for row in rows if "card" not in row]
        kept = {row["image"]: row.pop("content") for row in rows if "content" in row}
        if not self._has_tables:
            make_tables(self._engine)
        self._has_tables = False  # unless all goes well: someone may have taken them away
        with self._engine.begin() as connection:
            insert_new(connection, models, [self._card, *cards])
            if rows:
                insert_new(connection, verdicts, rows)
            if kept:
                # The newest, also after a clock was set back: it would else go before all that came until then.
                now = time.time()
                newest = sa.select(sa.func.max(images.c.time)).where(images.c.time <= now + DAY)
                now = max(now, connection.execute(newest).scalar() or now)
                found = [
                    {"image": image, "bytes": len(content), "time": now, "content": content}
                    for image, content in kept.items()
                ]
                insert_new(connection, images, found)
                if self._keep:  # what others kept, and left in a spool, is not this process's to bound
                    forgotten = _forget_oldest(connection, self._keep_bytes)
                    if forgotten and not self._forgets:
                        self._forgets, bound = True, f"--keep-bytes {self._keep_bytes}"
                        _say(f"images on record exceed {bound}: the oldest go, {forgotten:,} now")
        self._has_tables = True


def spool_for(url: sa.URL, spool: Path = SPOOL) -> Path:
    """The folder for the spools of a record, made if it is new.

    It is the same for a database however its URL is written, and after its password was changed.

    Raises:
        UserError: nothing can be written there.
    """
    is_file = url.get_backend_name() == "sqlite"
    database = str(Path(url.database or "").resolve()) if is_file else url.database
    named = url.set(password="", database=database and printable(database))
    plain = named.difference_update_query(["password"]).render_as_string()
    folder = spool / hashlib.sha256(plain.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{spool}: cannot be written ({error.strerror}); run where a folder can be made") from error
    return folder


def _say(line: str) -> None:
    with suppress(OSError):
        print(f"record: {printable(line)}", file=sys.stderr, flush=True)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of a spool: a verdict, with `content` if its image is kept, or a model's card; None if it is damaged."""
    text, _, content = line.partition(b"\t")
    try:
        row = json.loads(text)
        kept = {"content": binascii.a2b_base64(content)} if content else {}
    except ValueError:
        return None
    return {**row, **kept} if isinstance(row, dict) and row.keys() in (COLUMNS, CARD) else None


def _forget_oldest(connection: sa.Connection, limit: int) -> int:
    """Delete the oldest images beyond a number of bytes, but for those decided on; returns how many went."""
    # From the few reviews to their verdicts: a join would pass over all verdicts.
    decided = sa.select(verdicts.c.image).where(verdicts.c.id.in_(sa.select(reviews.c.verdict_id)))
    every, theirs = sa.select(sa.func.sum(images.c.bytes)), images.c.image.in_(decided)
    kept, forgotten = (connection.execute(every).scalar() or 0), 0
    if kept > limit:  # only then is it worth a look at which are whose
        kept -= connection.execute(every.where(theirs)).scalar() or 0
    # Images of a clock that was ahead go first: else they would outlive all that came since it was set right.
    ahead = images.c.time > time.time() + DAY
    for when in (ahead, ~ahead):
        oldest = sa.select(images.c.image, images.c.bytes).where(~theirs, when).order_by(images.c.time).limit(FORGOTTEN)
        while kept > limit and (found := connection.execute(oldest).all()):
            sizes = np.cumsum([row.bytes for row in found])
            gone = found[: int(np.searchsorted(sizes, kept - limit)) + 1]
            connection.execute(images.delete().where(images.c.image.in_([row.image for row in gone])))
            kept -= sum(row.bytes for row in gone)
            forgotten += len(gone)
    return forgotten
