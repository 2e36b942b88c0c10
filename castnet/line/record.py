"""Every verdict on record: written behind the line's back, lost by no fault of the database, written once."""

import base64
import fcntl
import hashlib
import json
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from castnet.database import with_tables
from castnet.errors import UserError
from castnet.line.inspector import Inspector, Verdict

metadata = sa.MetaData()
verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("time", sa.Float, nullable=False),  # seconds since 1970, UTC
    sa.Column("source", sa.String(16), nullable=False),  # predict, watch, serve, page, shadow
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("image", sa.String(64), nullable=False),  # SHA-256 of the file
    sa.Column("model", sa.String(64), nullable=False),  # SHA-256 of the file
    sa.Column("p_defect", sa.Float, nullable=False),
    sa.Column("unfamiliarity", sa.Float, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(16)),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Index("verdicts_by_time", "time", "source", "verdict", "reason"),
    sa.Index("verdicts_by_image", "image"),
)
models = sa.Table(
    "models",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
images = sa.Table(
    "images",
    metadata,
    sa.Column("image", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("time", sa.Float, nullable=False, index=True),
)
reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("verdict_id", sa.String(32), sa.ForeignKey("verdicts.id"), primary_key=True),
    sa.Column("is_defect", sa.Boolean, nullable=False),
    sa.Column("drawn_as", sa.String(16), nullable=False),  # the stratum it was shown from: unsure, rejected, passed
    sa.Column("time", sa.Float, nullable=False),
)

KEEP = {"none": (), "unsure": ("unsure",), "rejected": ("unsure", "defective"), "all": ("unsure", "defective", "good")}
FLUSH_SECONDS, RETRY_SECONDS = 0.5, 2.0
BATCH = 1000  # verdicts in one transaction


def engine_for(url: str) -> sa.Engine:
    """The way to a record, which need not be reachable yet.

    Args:
        url: of SQLAlchemy's kind, such as sqlite:///record.db or postgresql+psycopg://user@host/line.

    Raises:
        UserError: it is no such URL, or its driver is missing.
    """
    try:
        engine = sa.create_engine(url, pool_pre_ping=True)
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        raise UserError(f"record: no URL such as sqlite:///record.db ({type(error).__name__})") from error
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise UserError(f"record: is of {engine.dialect.name}; expected sqlite or postgresql")
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _write_ahead)
    return engine


def connect(url: str) -> sa.Engine:
    """Open a record to read, and make its tables if it is new.

    Raises:
        UserError: see `engine_for`, or the database cannot be reached.
    """
    engine = engine_for(url)
    try:
        with_tables(lambda: metadata.create_all(engine))
    except sa.exc.SQLAlchemyError as error:
        raise UserError(f"{engine.url!r}: cannot be opened ({str(error).splitlines()[0][:160]})") from error
    return engine


def open_record(url: str) -> sa.Engine:
    """Open a record that is there.

    Raises:
        UserError: see `connect`, or there is no such file.
    """
    engine = engine_for(url)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        raise UserError(f"{url}: no such record; `castnet predict --record {url} --keep rejected` makes one")
    return connect(url)


def _write_ahead(connection: Any, _: object) -> None:
    """Readers do not wait for the writer, nor the writer for readers (https://sqlite.org/wal.html)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA busy_timeout=5000")


class Recorder:
    """Takes verdicts and writes them by a thread of its own; a verdict waits for one line appended to a file.

    That file, the spool, is read back by the thread and emptied when the database has all of it. Where the database is
    away it grows, and is replayed when the database is back, by this process or by the next one. Every verdict has a
    number of its own, so that one written twice stands there once.

    Args:
        url: of the database, see `engine_for`.
        source: who judges: predict, watch, serve or page.
        inspector: whose verdicts they are.
        model: the inspector's file.
        keep: which images are kept beside their verdicts, a key of `KEEP`.
        keep_bytes: how many bytes the images kept may have; beyond, the oldest go.
        spool: folder of spools; one line's processes share it.

    Raises:
        UserError: see `engine_for`, or the spool cannot be written.
    """

    def __init__(
        self,
        url: str,
        source: str,
        inspector: Inspector,
        model: Path,
        keep: str = "none",
        keep_bytes: int = 1_000_000_000,
        spool: Path = Path(".castnet-spool"),
    ) -> None:
        self._engine, self._source, self._keep, self._keep_bytes = engine_for(url), source, KEEP[keep], keep_bytes
        self._model, self._card = digest_of(model), json.dumps(inspector.card)
        # The URL may hold a password, so a digest of it names the folder.
        folder = spool / hashlib.sha256(url.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._spools = [_locked(path) for path in sorted(folder.glob("*.jsonl"))]
            own = _locked(folder / f"{uuid.uuid4().hex}.jsonl")
        except OSError as error:
            raise UserError(f"{spool}: cannot be written ({error.strerror})") from error
        assert own is not None
        self._own, self._lock, self._stop = own, threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def put_file(self, file: Path, verdict: Verdict) -> None:
        """Record one verdict on a file; one that is gone by now has no digest."""
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        self.put(str(file), content, verdict)

    def put(self, name: str, content: bytes, verdict: Verdict) -> None:
        """Record one verdict on the image in a file's bytes."""
        row = {
            "id": uuid.uuid4().hex,
            "time": time.time(),
            "source": self._source,
            "name": name,
            "image": hashlib.sha256(content).hexdigest() if content else "",
            "model": self._model,
            "p_defect": verdict.p_defect,
            "unfamiliarity": verdict.unfamiliarity,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "latency_ms": verdict.latency_ms,
        }
        if verdict.verdict in self._keep:
            row["content"] = base64.b64encode(content).decode()
        line = json.dumps(row).encode() + b"\n"
        with self._lock:
            self._own.seek(0, os.SEEK_END)
            self._own.write(line)

    def close(self) -> None:
        """Write what is left, if the database takes it; the rest stays in the spool."""
        self._stop.set()
        self._thread.join(timeout=30)
        if not self._thread.is_alive():
            self._own.close()  # which unlocks it for who replays it

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        waiting = FLUSH_SECONDS
        while True:
            stopping = self._stop.wait(waiting)
            try:
                self._drain()
                waiting = FLUSH_SECONDS
            except (sa.exc.SQLAlchemyError, OSError):  # away: verdicts go on, and it is asked again
                waiting = RETRY_SECONDS
            if stopping:
                return

    def _drain(self) -> None:
        for spool in [spool for spool in self._spools if spool is not None]:
            self._replay(spool)
            os.unlink(spool.name)
            spool.close()
        self._spools = []
        self._replay(self._own)
        if self._stop.is_set() and os.fstat(self._own.fileno()).st_size == 0:
            os.unlink(self._own.name)

    def _replay(self, spool: BinaryIO) -> None:
        """Write all of a spool, and empty it unless more has come by then."""
        done = 0
        while True:
            with self._lock:
                spool.seek(done)
                lines = spool.readlines(BATCH * 400)
            # A line without an end was being written when the machine failed.
            whole = [line for line in lines if line.endswith(b"\n")]
            if whole:
                self._write([json.loads(line) for line in whole])
                done += sum(map(len, whole))
            with self._lock:
                if os.fstat(spool.fileno()).st_size == done or not whole:
                    spool.truncate(0)
                    return

    def _write(self, rows: list[dict[str, Any]]) -> None:
        kept = [
            {"image": row["image"], "content": base64.b64decode(row.pop("content")), "time": row["time"]}
            for row in rows
            if "content" in row
        ]
        with_tables(lambda: metadata.create_all(self._engine))
        with self._engine.begin() as connection:
            insert_new(connection, models, [{"model": self._model, "card": self._card, "since": time.time()}])
            insert_new(connection, verdicts, rows)
            if kept:
                insert_new(connection, images, [{**row, "bytes": len(row["content"])} for row in kept])
                _forget_oldest(connection, self._keep_bytes)


def _locked(path: Path) -> BinaryIO | None:
    """A spool that nobody else writes, or None; a process that ends leaves its lock."""
    file = path.open("a+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def insert_new(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; one that is there already stays as it is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), rows)


def _forget_oldest(connection: sa.Connection, limit: int) -> None:
    kept = connection.execute(sa.select(sa.func.sum(images.c.bytes))).scalar() or 0
    oldest = sa.select(images.c.image, images.c.bytes).order_by(images.c.time)
    for image, size in connection.execute(oldest).all() if kept > limit else []:
        if kept <= limit:
            return
        connection.execute(images.delete().where(images.c.image == image))
        kept -= size


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
