from itertools import product

import pytest
import sqlalchemy as sa
from scipy.stats import hypergeom

from castnet.line.record import images, verdicts
from castnet.line.review import Stratum, count_strata, decide, estimate, limits, next_to_review, undo
from tests.line.conftest import Put


def of(verdicts: int, reviewed: int, defective: int) -> Stratum:
    """One to which nothing came since it was reviewed."""
    return Stratum(verdicts, reviewed, reviewed, defective)


def test_castings_are_drawn_by_their_random_number_where_the_image_is_kept(engine: sa.Engine, put: Put) -> None:
    with engine.begin() as connection:
        connection.execute(images.insert(), {"image": "1" * 64, "content": b"image", "bytes": 5, "time": 0.0})
    put(2)  # no image is kept of these
    put(1, image="1" * 64, verdict="defective")
    put(1, image="1" * 64, source="shadow")
    put(1, image="1" * 64, time=99)
    first, second = put(2, image="1" * 64)
    with engine.begin() as connection:
        row = next_to_review(connection, "passed", 0, 10)
        assert row
        assert (row.id, row.content) == (first, b"image")
        skipping = next_to_review(connection, "passed", 0, 10, [first])
        assert skipping
        assert skipping.id == second
        with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
            decide(connection, "of no verdict", "passed", True)
        assert decide(connection, first, "passed", True)
        assert not decide(connection, first, "passed", False), "the first decision stands"
        assert count_strata(connection, 0, 10) == {
            "unsure": of(0, 0, 0),
            "rejected": of(1, 0, 0),
            "passed": of(4, 1, 1),
        }
        assert decide(connection, second, "passed", False)
        assert next_to_review(connection, "passed", 0, 10) is None
        undo(connection, first)
        again = next_to_review(connection, "passed", 0, 10)
        assert again
        assert again.id == first


def test_decisions_count_up_to_the_first_casting_that_came_later(
    engine: sa.Engine, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(images.insert(), {"image": "1" * 64, "content": b"image", "bytes": 5, "time": 0.0})
    first, second, third, fourth, fifth = put(5, image="1" * 64)
    monkeypatch.setattr("time.time", lambda: 5.0)

    def passed(connection: sa.Connection) -> Stratum:
        return count_strata(connection, 0, 10)["passed"]

    with engine.begin() as connection:
        for number in (first, fourth):  # second and third were skipped
            decide(connection, number, "passed", True)
        assert passed(connection) == of(5, 2, 2)
        later = verdicts.update().values(time=6.0)
        connection.execute(later.where(verdicts.c.id == fifth))
        assert passed(connection) == of(5, 2, 2), "it is drawn after all that were decided on"
        skipped = later.where(verdicts.c.id == second)
        connection.execute(skipped.values(image="2" * 64))
        assert passed(connection) == of(5, 2, 2), "nobody can decide on what is not kept"
        connection.execute(skipped.values(image="1" * 64, verdict="defective"))
        assert passed(connection) == of(4, 2, 2), "it came to another stratum"
        connection.execute(later.where(verdicts.c.id == third))
        assert passed(connection) == Stratum(4, 2, 1, 1)
        connection.execute(verdicts.update().where(verdicts.c.id == third).values(time=1.0))
        assert passed(connection) == of(4, 2, 2)
        connection.execute(images.insert(), {"image": "3" * 64, "content": b"image", "bytes": 5, "time": 6.0})
        connection.execute(verdicts.update().where(verdicts.c.id == third).values(image="3" * 64))
        assert passed(connection) == Stratum(4, 2, 1, 1), "it waited in a spool when others were decided on"
        decide(connection, third, "passed", False)
        assert passed(connection) == of(4, 3, 2)
        assert count_strata(connection, 10, 20)["passed"] == of(0, 0, 0), "decisions count for their castings' time"


def test_a_decision_on_what_is_not_on_record_is_refused(engine: sa.Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        decide(connection, "0" * 32, "passed", True)


def test_rates_weigh_each_stratum_by_its_size() -> None:
    """4, 90 and 10 castings are defective: 10 of 104 pass. 6, 10 and 990 are good: 10 of 1,006 are rejected."""
    strata = {
        "unsure": of(10, 10, 4),
        "rejected": of(100, 20, 18),
        "passed": of(1000, 100, 1),
    }
    escapes, overkill = estimate(strata)
    assert escapes.rate == pytest.approx(10 / 104)
    assert overkill.rate == pytest.approx(10 / 1006)
    assert escapes.low == pytest.approx(1 / (1 + 4 + 98)), (
        "one passed for certain, and at most 98 were rejected rightly"
    )
    # The error of 2.5 % at an end is shared by the two strata of which a sample was reviewed.
    least, most = limits(strata["rejected"], 0.0125)[0], limits(strata["passed"], 0.0125)[1]
    assert escapes.high == pytest.approx(most / (most + 4 + least))
    assert overkill.low == pytest.approx(2 / (2 + 6 + 999))
    assert 10 / 1006 < overkill.high < 0.05


def test_what_was_reviewed_whole_is_known() -> None:
    escapes, overkill = estimate({"unsure": of(2, 2, 1), "rejected": of(8, 8, 6), "passed": of(90, 90, 1)})
    assert (escapes.rate, escapes.low, escapes.high) == pytest.approx((1 / 8,) * 3)
    assert (overkill.rate, overkill.low, overkill.high) == pytest.approx((2 / 92,) * 3)


def test_what_was_not_reviewed_is_not_known() -> None:
    strata = {"unsure": of(0, 0, 0), "rejected": of(100, 100, 100), "passed": of(1000, 0, 0)}
    escapes, _ = estimate(strata)
    assert (escapes.rate, escapes.low) == (None, 0)
    assert escapes.high == pytest.approx(1000 / 1100)
    none = estimate(dict.fromkeys(strata, of(0, 0, 0)))
    assert [(found.rate, found.low, found.high) for found in none] == [(None, 0, 1)] * 2


def test_no_escape_found_is_not_none_there() -> None:
    escapes, _ = estimate({"unsure": of(0, 0, 0), "rejected": of(50, 50, 50), "passed": of(950, 100, 0)})
    assert (escapes.rate, escapes.low) == (0, 0)
    assert escapes.high > 20 / 70, "some 3.6 % of 950 may still be defective"


def test_limits_are_those_of_the_hypergeometric_distribution() -> None:
    """Two of four drawn, none of them defective: with 2 defective among the four that happens with chance 1/6."""
    assert limits(of(4, 2, 0), 0.1) == (0, 2)
    assert limits(of(4, 2, 0), 0.2) == (0, 1)
    assert limits(of(4, 0, 0), 0.1) == (0, 4)


def test_intervals_cover_the_truth_at_least_as_often_as_they_say() -> None:
    """All samples of a small population, each with its chance."""
    sizes, held, drawn = (4, 12, 30), (2, 9, 3), (2, 6, 10)
    names = ("unsure", "rejected", "passed")
    truth = held[2] / sum(held), (sizes[1] - held[1]) / (sum(sizes) - sum(held))
    covered = [0.0, 0.0]
    for found in product(*(range(number + 1) for number in drawn)):
        chance = 1.0
        for size, defective, number, hits in zip(sizes, held, drawn, found, strict=True):
            chance *= float(hypergeom.pmf(hits, size, defective, number))
        if chance == 0:
            continue
        strata = {name: of(*row) for name, row in zip(names, zip(sizes, drawn, found, strict=True), strict=True)}
        for index, estimated in enumerate(estimate(strata)):
            covered[index] += chance * (estimated.low <= truth[index] <= estimated.high)
    assert min(covered) >= 0.95
