"""Databases that several processes open at once while their tables are still missing."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

PATIENCE, PAUSE = 10.0, 0.1  # seconds: how long to ask again, and how often
# PostgreSQL's unique_violation (in its own catalogue), duplicate_table and duplicate_object
# (https://www.postgresql.org/docs/current/errcodes-appendix.html); SQLite's for a file that is locked and for a second
# row (https://sqlite.org/rescode.html). A second table has no code of its own there.
TOLD = ("23505", "42P07", "42710", "SQLITE_BUSY", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")

# It warns of lost connections besides, which whoever uses one tells of.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

T = TypeVar("T")


def with_tables(make: Callable[[], T]) -> T:
    """Make tables that are missing, or wait for another process that is making them.

    Looking for a table and making it are two steps, and no lock that SQLite and PostgreSQL share spans both. Whoever
    comes between the two of another is told that the table exists, or that the file is locked; asked again, it finds
    the table.

    Args:
        make: looks for the tables and makes those that are missing.

    Returns:
        What `make` returned.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            return make()
        except Exception as error:
            if not _came_second(error):
                raise
        time.sleep(PAUSE)
    return make()


def shown(url: str | URL) -> str:
    """A database's address without what may be a password."""
    try:
        return make_url(url).set(query={}).render_as_string()
    except (ArgumentError, ValueError):
        return str(url).partition(":")[0]


def why(error: BaseException) -> str:
    """What a database itself said, in a line; SQLAlchemy and Optuna wrap it in exceptions of their own."""
    told = getattr(error, "orig", None) or error.__cause__ or error
    return str(getattr(told, "orig", None) or told).partition("\n")[0]


def _came_second(error: BaseException | None) -> bool:
    """Whether a database says so; Optuna wraps some of what it says in an exception of its own."""
    if not isinstance(error, DBAPIError):
        return error is not None and _came_second(error.__cause__)
    told = error.orig
    codes = getattr(told, "sqlstate", None), getattr(told, "sqlite_errorname", None)
    return any(code in TOLD for code in codes) or "already exists" in str(told)
