import math
import time
from datetime import date
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import streamlit as st

from castnet.line.page.today_tab import hour_names, show_chart
from castnet.line.record import images
from castnet.line.today import control_limits, count_by_hour, drift, hours_of, last_rejected, last_verdicts
from tests.line.conftest import Put


def test_verdicts_are_counted_by_hour_and_a_shadows_are_not(engine: sa.Engine, put: Put) -> None:
    edges = hours_of(date(2026, 11, 24))
    put(3, time=edges[0])
    put(2, time=edges[1] - 0.001, verdict="defective")
    put(1, time=edges[1], verdict="unsure", reason="unfamiliar")
    put(1, time=edges[1], verdict="unsure", reason="doubtful")
    put(5, time=edges[1], source="shadow")
    put(7, time=edges[0] - 0.001)
    put(7, time=edges[-1])
    with engine.connect() as connection:
        counts = count_by_hour(connection, edges)
    assert counts.shape == (24, 4)
    assert counts[:2].tolist() == [[3, 2, 0, 0], [0, 0, 1, 1]]
    assert counts.sum() == 7


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)])
def test_a_day_in_which_the_clock_changes_has_its_own_length(
    day: date, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    charts: list[dict[str, Any]] = []
    monkeypatch.setattr(st, "vega_lite_chart", lambda frame, spec, **options: charts.append(spec))
    try:
        edges = hours_of(day)
        called = hour_names(edges)
        sizes = np.full(hours, 60)
        show_chart("rejected", sizes // 60, edges, sizes, mean=0.01)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(edges) == hours + 1
    assert (np.diff(edges) == 3600).all()
    assert len(set(called)) == hours
    assert ("02:00 CEST" in called) is (hours == 25)
    assert charts[0]["encoding"]["x"]["sort"] == called  # of letters CET would come before CEST


@pytest.mark.parametrize("mean", [0.0, 0.002, 0.01, 0.1, 0.5, 0.995, 1.0])
def test_if_nothing_changes_one_hour_in_370_or_fewer_lie_outside_the_limits(mean: float) -> None:
    sizes = np.array([1, 7, 60, 1000])
    lower, upper = control_limits(mean, np.append(sizes, 0))
    for size, low, high in zip(sizes.tolist(), lower, upper, strict=False):
        chances = [math.comb(size, hits) * mean**hits * (1 - mean) ** (size - hits) for hits in range(size + 1)]
        shares = np.arange(size + 1) / size  # as the page has them
        for beyond, next_to_it in ((shares < low, shares <= low), (shares > high, shares >= high)):
            assert np.sum(chances, where=beyond) <= 0.00135 < np.sum(chances, where=next_to_it)
    assert np.isnan([lower[-1], upper[-1]]).all()


def test_limits_of_many_castings_are_three_sigma() -> None:
    """3 · sqrt(0.1 · 0.9 / 100,000) = 0.00285."""
    lower, upper = control_limits(0.1, np.array([100_000]))
    assert [*lower, *upper] == pytest.approx([0.1 - 0.00285, 0.1 + 0.00285], abs=2e-5)


def test_drift_compares_the_last_verdicts_with_their_own_models_validation(engine: sa.Engine, put: Put) -> None:
    """Of two samples of four that do not overlap the distance is 1 and p = 2 / (8 choose 4)."""
    put(50, time=1, p_defect=0)
    put(4, time=2, p_defect=0.9, unfamiliarity=0.2)
    put(3, time=3, model="b" * 64)
    reference = {"p_defect": [0.1, 0.2, 0.3, 0.4], "unfamiliarity": [0.2, 0.2, 0.2, 0.2]}
    with engine.connect() as connection:
        last = last_verdicts(connection, 0, 10, most=7)
    found = {test.quantity: test for test in drift(last, {"a" * 64: {"reference": reference}, "b" * 64: {}})}
    assert (found["p_defect"].verdicts, found["p_defect"].images) == (4, 4)
    assert (found["p_defect"].distance, found["p_defect"].p_value) == pytest.approx((1, 2 / 70))
    assert (found["unfamiliarity"].distance, found["unfamiliarity"].p_value) == (0, 1)


def test_the_last_rejected_come_latest_first_with_their_image_if_it_is_kept(engine: sa.Engine, put: Put) -> None:
    with engine.begin() as connection:
        connection.execute(images.insert(), {"image": "1" * 64, "content": b"image", "bytes": 5, "time": 0.0})
    first, second, third = (
        put(time=when, verdict="defective", image=image * 64)[0] for when, image in ((1, "0"), (3, "1"), (2, "0"))
    )
    put(time=4)
    put(time=4, verdict="unsure", reason="doubtful")
    with engine.connect() as connection:
        rows = last_rejected(connection, 0, 10, most=2)
    assert [(row.id, row.content) for row in rows] == [(second, b"image"), (third, None)]
    assert first not in {row.id for row in rows}
