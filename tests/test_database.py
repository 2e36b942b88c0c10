import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest
import sqlalchemy as sa

from castnet.database import with_tables
from tests.conftest import ROOT, PostgreSQL

AT_ONCE, TIMES = 4, 5
# Each process opens one new database after the other, when told to: imports take longer than a race lasts.
OPEN = {
    "record": "from castnet.line.record import engine_for, make_tables\n"
    "opened = lambda url: make_tables(engine_for(url))",
    "study": "from castnet.study.storage import open_storage as opened",
}
EACH = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    opened(line.strip())
    print("opened", flush=True)
"""


@pytest.mark.parametrize("what", OPEN)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whoever_opens_a_new_database_at_the_same_time_finds_its_tables(
    what: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def new_database(number: int) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / str(number)}.db"
        server: PostgreSQL = request.getfixturevalue("postgresql")
        return server.new_database()

    command = [sys.executable, "-c", OPEN[what] + EACH]
    processes = [
        Popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True, bufsize=1, cwd=ROOT) for _ in range(AT_ONCE)
    ]
    assert [_line(process) for process in processes] == ["ready\n"] * AT_ONCE
    for number in range(TIMES):
        url = new_database(number)
        for process in processes:
            assert process.stdin
            process.stdin.write(f"{url}\n")
        assert [_line(process) for process in processes] == ["opened\n"] * AT_ONCE
    assert [process.communicate()[0] for process in processes] == [""] * AT_ONCE


def _line(process: "Popen[str]") -> str:
    """The next line that a process prints, or all of it where that is an error."""
    assert process.stdout
    line = process.stdout.readline()
    return line if line in ("ready\n", "opened\n") else line + process.communicate()[0]


def test_what_is_no_race_is_not_asked_again() -> None:
    asked: list[int] = []

    def make() -> None:
        asked.append(1)
        with sa.create_engine("sqlite://").connect() as connection:
            connection.execute(sa.text("select 1 from missing"))

    with pytest.raises(sa.exc.OperationalError, match="no such table"):
        with_tables(make)
    assert asked == [1]
