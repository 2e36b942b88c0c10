"""What every tab of the page stands on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

import streamlit as st

from castnet.errors import UserError
from castnet.line.inspector import Inspector
from castnet.line.page.looks import plain

if TYPE_CHECKING:
    import sqlalchemy as sa

    from castnet.line.recorder import Recorder


class AwayError(Exception):
    """The record cannot be used; why, in a line."""


@dataclass(frozen=True)
class Station:
    """A model and, where there is one, its record.

    Attributes:
        inspector: judges what is dropped on the page.
        engine: the way to the record, or None.
        recorder: puts this page's own verdicts there, or None.
    """

    inspector: Inspector
    engine: "sa.Engine | None"
    recorder: "Recorder | None"

    @contextmanager
    def record(self) -> "Iterator[sa.Connection]":
        """The record, to read or to write.

        Raises:
            AwayError: it cannot be used.
        """
        import sqlalchemy as sa

        from castnet.database import why
        from castnet.line.record import make_tables

        engine = self.engine
        assert engine is not None
        try:
            make_tables(engine)
            with engine.begin() as connection:
                yield connection
        except (sa.exc.SQLAlchemyError, OSError, UserError) as error:  # the latter two of a file that is another by now
            raise AwayError(why(error)) from error


def telling_of_away(show: Callable[[Station], None]) -> Callable[[Station], None]:
    """A tab that ends with a sentence where the record is away."""

    @wraps(show)
    def shown(station: Station) -> None:
        try:
            show(station)
        except AwayError as error:
            st.error(
                f"The record cannot be used: {plain(str(error))}. Verdicts go on, and wait in the spool until it can."
            )

    return shown
