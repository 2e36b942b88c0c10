"""Records on both databases."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from castnet.line.record import engine_for, make_tables, verdicts

Put = Callable[..., list[str]]


def zone_at_noon() -> str:
    """For the environment's TZ: where it is about noon now, so that no test of today meets midnight."""
    return f"NOON{datetime.now(UTC).hour - 12:+d}"


def connect(url: str) -> sa.Engine:
    """A record, which is made if it is new."""
    engine = engine_for(url)
    make_tables(engine)
    return engine


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is run in this process takes its place as __main__; processes that a later test begins look there."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty record."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'record.db'}"
    else:
        url = request.getfixturevalue("postgresql").new_database()
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def put(engine: sa.Engine) -> Put:
    """Puts verdicts on record and returns their numbers; what is not named is the same for all."""

    def put(number: int = 1, **columns: Any) -> list[str]:
        with engine.begin() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(verdicts)).scalar_one()
            same = {"source": "watch", "name": "", "image": "0" * 64, "model": "a" * 64, "latency_ms": 1.0}
            rows = [
                {
                    **same,
                    **{"time": 0.0, "p_defect": 0.5, "unfamiliarity": 0.5, "verdict": "good", "reason": None},
                    **columns,
                    "id": UUID(int=count + index).hex,
                }
                for index in range(number)
            ]
            connection.execute(verdicts.insert(), rows)
        return [row["id"] for row in rows]

    return put
