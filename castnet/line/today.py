"""What a record says of one day: verdicts by hour, control limits, drift. The database counts; nothing here draws."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from scipy.stats import binom, ks_2samp, norm

from castnet.line.card import read_card
from castnet.line.record import images, models, verdicts

OUTCOMES = ("good", "defective", "unfamiliar", "doubtful")  # a verdict or, of an unsure one, the reason
BASELINE_DAYS = 7
COMPARED = 1000  # verdicts; the last ones, so that the test speaks of now
QUANTITIES = ("p_defect", "unfamiliarity")

Row = sa.Row[Any]


@dataclass(frozen=True)
class Drift:
    """One quantity of a model's last verdicts against its validation images, by the two-sample Kolmogorov–Smirnov test.

    Attributes:
        model: the SHA-256 of its file.
        quantity: of `QUANTITIES`.
        verdicts: how many were compared.
        images: how many of validation they were compared with.
        distance: the largest difference between the two shares of values below a bound, from 0 to 1.
        p_value: how probable as large a distance is if nothing has changed and castings come independently.
    """

    model: str
    quantity: str
    verdicts: int
    images: int
    distance: float
    p_value: float


def hours_of(day: date, days: int = 1) -> NDArray[np.float64]:
    """Where the hours of one or more days begin and end on this machine's clock, in seconds since 1970: 25 for a day.

    A day in which the clock changes has an hour more or less.
    """
    start, end = (datetime.combine(day + timedelta(later), time.min).timestamp() for later in (0, days))
    return np.append(np.arange(start, end, 3600), end)


def given(since: float, until: float) -> sa.ColumnElement[bool]:
    """The verdicts that answered somebody from one time until before another; a shadow's answer nobody."""
    return sa.and_(verdicts.c.time >= since, verdicts.c.time < until, verdicts.c.source != "shadow")


def count_by_hour(connection: sa.Connection, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Verdicts between successive times, int64 (len(edges) - 1, 4): one column for each of `OUTCOMES`."""
    return np.array([count(connection, *ends) for ends in pairwise(edges)])


def count(connection: sa.Connection, since: float, until: float) -> NDArray[np.int64]:
    """Verdicts from one time until before another, int64 (4,): one for each of `OUTCOMES`."""
    outcome = sa.func.coalesce(verdicts.c.reason, verdicts.c.verdict)
    # One pass over an index, without a table of groups.
    counts = [sa.func.count().filter(outcome == name) for name in OUTCOMES]
    return np.array(connection.execute(sa.select(*counts).where(given(float(since), float(until)))).one())


def control_limits(mean: float, sizes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shewhart's p-chart with the limits that a binomial count has where a normal one has three sigma.

    Beyond each limit lies a sample with a probability of at most 0.00135, so that one in 370 or fewer lie outside if
    nothing changes. Of a rare class, mean ± 3 · sqrt(mean · (1 − mean) / size) would leave several times as many
    outside, for the count is skewed. Probability limits and limits of variable width: NIST/SEMATECH e-Handbook of
    Statistical Methods, sections 6.3.1 and 6.3.3.2.

    Args:
        mean: p̄, the share over a longer time.
        sizes: castings in each sample, (n,).

    Returns:
        Lower and upper limit, (n,), both shares that are usual still; NaN for an empty sample.
    """
    counts = np.where(sizes > 0, sizes, 1)
    lower, upper = (limit(norm.sf(3), counts, mean) / counts for limit in (binom.ppf, binom.isf))
    return np.where(sizes > 0, lower, np.nan), np.where(sizes > 0, upper, np.nan)


def read_cards(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """The cards of the models on record, by the SHA-256 of their files, without those that are none."""
    cards = {}
    for model, card in connection.execute(sa.select(models.c.model, models.c.card)):
        with suppress(ValueError):
            cards[model] = read_card(card)
    return cards


def last_verdicts(connection: sa.Connection, since: float, until: float, most: int = COMPARED) -> Sequence[Row]:
    """The last verdicts of a time: model and `QUANTITIES`, the latest first."""
    columns = (verdicts.c.model, *(verdicts.c[quantity] for quantity in QUANTITIES))
    query = sa.select(*columns).where(given(since, until)).order_by(verdicts.c.time.desc()).limit(most)
    return connection.execute(query).all()


def drift(last: Sequence[Row], cards: Mapping[str, Mapping[str, Any]]) -> Iterator[Drift]:
    """Compare verdicts with the validation images of the models that gave them.

    Args:
        last: see `last_verdicts`.
        cards: of models, by digest; one without a reference has nothing to be compared with.
    """
    for model in dict.fromkeys(row.model for row in last):
        reference = cards.get(model, {}).get("reference") or {}
        for quantity in filter(reference.get, QUANTITIES):
            found = [row._mapping[quantity] for row in last if row.model == model]
            test = ks_2samp(found, reference[quantity])
            yield Drift(
                model, quantity, len(found), len(reference[quantity]), float(test.statistic), float(test.pvalue)
            )


def last_rejected(connection: sa.Connection, since: float, until: float, most: int) -> Sequence[Row]:
    """The last castings called defective, the latest first: all columns of the verdicts, and `content` or None."""
    query = (
        sa.select(verdicts, images.c.content)
        .outerjoin(images, images.c.image == verdicts.c.image)
        .where(given(since, until), verdicts.c.verdict == "defective")
        .order_by(verdicts.c.time.desc())
        .limit(most)
    )
    return connection.execute(query).all()
