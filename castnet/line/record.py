"""The tables of a record, and the way to them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from castnet.database import shown, with_tables
from castnet.errors import UserError

BEGINS = b"SQLite format 3\0"  # https://sqlite.org/fileformat.html#magic_header_string; an empty file is one too

# A server in SQL_ASCII leaves it to its client what text is. One that is silent for so long, in seconds and in
# milliseconds, is away (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).
PSYCOPG = {"client_encoding": "utf8", "connect_timeout": 5, "tcp_user_timeout": 10_000}
ENCODINGS = ("UTF8", "SQL_ASCII")  # of PostgreSQL's, those that take any text

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
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("time", sa.Float, nullable=False),  # when it came to the record, maybe long after it was judged
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Index("images_by_time", "time", "bytes"),  # so that what is kept is counted without passing over all of it
)
reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("verdict_id", sa.String(32), sa.ForeignKey("verdicts.id"), primary_key=True),
    sa.Column("is_defect", sa.Boolean, nullable=False),
    sa.Column("drawn_as", sa.String(16), nullable=False),  # the stratum it was shown from: unsure, rejected, passed
    sa.Column("time", sa.Float, nullable=False),
)


def engine_for(url: str) -> sa.Engine:
    """The way to a record, which need not be reachable yet.

    Args:
        url: of SQLAlchemy's kind, such as sqlite:///record.db or postgresql+psycopg://user@host/line.

    Raises:
        UserError: it is no such URL, its driver is missing, or it is a file with other tables of the same names.
    """
    engine = _engine(url)
    if engine.dialect.name == "sqlite":  # a server that is silent is not waited for: it is looked into as it is written
        with suppress(sa.exc.SQLAlchemyError, OSError, ValueError):  # what is away may be back by then, too
            if lacks := _lacks(_reader(url)):
                raise UserError(f"record: {engine.url.database}: {lacks}; name another file")
        sa.event.listen(engine, "connect", _write_ahead)
    return engine


def _lacks(engine: sa.Engine) -> str:
    """What a database lacks that has tables by a record's names and is none of this castnet's; nothing is written."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return ""
    there = sa.inspect(engine)
    for table in metadata.tables.values():
        if there.has_table(table.name):
            columns = {column["name"] for column in there.get_columns(table.name)}
            if missing := set(table.c.keys()) - columns:
                return f"its table {table.name} has no {', '.join(sorted(missing))} and is none of this castnet's"
    return ""


def make_tables(engine: sa.Engine) -> None:
    """Make those of a record's tables that are missing.

    Raises:
        SQLAlchemyError: the database cannot be reached, has other tables of the same names, or does not take any text.
    """
    if engine.dialect.name == "postgresql" and not sa.inspect(engine).has_table(verdicts.name):
        with engine.connect() as connection:
            encoding = connection.execute(sa.text("SHOW server_encoding")).scalar_one()
        if encoding not in ENCODINGS:  # one name of a file would keep every later verdict from being written
            raise sa.exc.InvalidRequestError(
                f"its encoding is {encoding}, which lacks letters that names of files have; expected UTF8, as "
                "`createdb --encoding=UTF8 --template=template0` makes it"
            )

    def make() -> None:
        # A file would be put into write-ahead mode by looking into it as it is written.
        if lacks := _lacks(_reader(engine.url) if engine.dialect.name == "sqlite" else engine):
            raise sa.exc.InvalidRequestError(lacks)
        metadata.create_all(engine)

    with_tables(make)


def open_record(url: str) -> sa.Engine:
    """Open a record that is there, only to read it: nothing is written to what may be somebody else's database.

    Raises:
        UserError: see `engine_for`; or there is no such file, it has not a record's tables, or it cannot be reached.
    """
    engine = _reader(url)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        raise UserError(f"{url}: no such record; `castnet predict --record {url} --keep rejected` makes one")
    with reading(engine), engine.connect() as connection:
        for table in metadata.tables.values():
            connection.execute(sa.select(table).limit(0))
    return engine


@contextmanager
def reading(engine: sa.Engine) -> Iterator[None]:
    """What a database says instead of an answer becomes one line.

    Raises:
        UserError: it says so.
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise UserError(f"{shown(engine.url)}: cannot be read ({str(error).splitlines()[0][:160]})") from error


def _engine(url: str | sa.URL) -> sa.Engine:
    try:
        asked = sa.make_url(url)
        kind = asked.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise UserError(f"record: is of {kind}; expected sqlite or postgresql")
        # A database in memory ends with the process, and each thread would have one of its own.
        has_query = asked.query or (isinstance(url, str) and "?" in url)  # SQLAlchemy drops one without a value
        if kind == "sqlite" and (asked.database in (None, "", ":memory:") or has_query):
            raise UserError(f"record: {url} is not a file alone; expected sqlite:///FILE, such as sqlite:///record.db")
        if kind == "sqlite" and asked.database and _is_something_else(Path(asked.database)):
            raise UserError(f"record: {asked.database} is there and no database of SQLite; name another file")
        # A file is opened anew each time, since one that was moved away would go on taking verdicts unseen.
        options: dict[str, Any] = {"poolclass": sa.NullPool} if kind == "sqlite" else {"pool_pre_ping": True}
        if asked.get_driver_name() == "psycopg":
            options["connect_args"] = {name: value for name, value in PSYCOPG.items() if name not in asked.query}
        engine = sa.create_engine(asked, **options)
    except ImportError as error:
        raise UserError(
            f"record: {error.name}, by which this URL is reached, is not installed here; expected sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE (`pip install 'castnet[record]'`)"
        ) from error
    except (sa.exc.SQLAlchemyError, ValueError) as error:  # a port that is no number
        raise UserError(f"record: no URL such as sqlite:///record.db ({type(error).__name__})") from error
    return engine


def _reader(url: str | sa.URL) -> sa.Engine:
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "do_connect", _as_it_is)
    return engine


def _is_something_else(file: Path) -> bool:
    """Whether what is there is no file that SQLite would take; one that cannot be read yet may be."""
    with suppress(OSError):
        if not S_ISREG(file.stat().st_mode):  # asked once, since another process may be about to make it
            return True
        with file.open("rb") as content:
            begins = content.read(len(BEGINS))  # of which another process may have written a part
        return any(got not in (0, expected) for got, expected in zip(begins, BEGINS, strict=False))
    return False


def _as_it_is(dialect: Any, _: object, arguments: list[Any], options: dict[str, Any]) -> Any:
    """Connect to a file of SQLite's that is there, and make none.

    The arguments stay as they are: before 2.0.48 SQLAlchemy hands the same ones on each time.
    """
    file = Path(arguments[0])
    # Beside a file in WAL mode SQLite makes others while it is read. Where it cannot, and nobody else has, the file
    # does not change (https://sqlite.org/wal.html#read_only_databases).
    rests = not os.access(file.parent, os.W_OK) and not os.path.exists(f"{file}-wal")
    return dialect.connect(f"{file.as_uri()}?{'immutable=1' if rests else 'mode=rw'}", **options | {"uri": True})


def _write_ahead(connection: Any, _: object) -> None:
    """Readers do not wait for the writer, nor the writer for readers (https://sqlite.org/wal.html)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA foreign_keys=ON")  # no decision on a verdict that is not there, as servers have it


def insert_new(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; one that is there already stays as it is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), rows)
