from collections.abc import Iterator
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy as sa

from castnet import database
from castnet.database import with_tables
from castnet.study.storage import open_storage
from tests.conftest import BESIDE, PATIENCE, print_into
from tests.line.conftest import connect

AT_ONCE, TIMES = 4, 5


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that all of `processes` print into."""
    return tmp_path_factory.mktemp("printed") / "printed"


@pytest.fixture(scope="module")
def processes(printed: Path) -> Iterator[Pool]:
    """Several, each of which waits for the others before it opens a database."""
    ready = BESIDE.Barrier(AT_ONCE, timeout=PATIENCE)
    with BESIDE.Pool(AT_ONCE, initializer=_begin, initargs=(ready, printed)) as pool:
        yield pool


def _begin(barrier: Barrier, printed: Path) -> None:
    global together
    together = barrier
    database.PATIENCE = PATIENCE
    print_into(printed)


def _open(what: str, url: str) -> None:
    together.wait()
    {"record": connect, "study": open_storage}[what](url)


@pytest.mark.parametrize("what", ["record", "study"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whoever_opens_a_new_database_at_the_same_time_finds_its_tables(
    what: str, kind: str, processes: Pool, printed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for number in range(TIMES):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        if kind == "postgresql":
            url = request.getfixturevalue("postgresql").new_database()
        processes.starmap(_open, [(what, url)] * AT_ONCE, chunksize=1)
    assert printed.read_text() == ""


def test_what_is_no_race_is_not_asked_again() -> None:
    asked: list[int] = []

    def make() -> None:
        asked.append(1)
        with sa.create_engine("sqlite://").connect() as connection:
            connection.execute(sa.text("select 1 from missing"))

    with pytest.raises(sa.exc.OperationalError, match="no such table"):
        with_tables(make)
    assert asked == [1]
