"""The page's tabs without a browser: what they say of a record."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from castnet.line.inspector import Inspector
from castnet.line.page import today_tab
from castnet.line.page.card import show_card
from castnet.line.page.inspect_tab import Casting, show_one
from castnet.line.page.looks import clock, percent, png
from castnet.line.page.models_tab import show_models
from castnet.line.page.review_tab import show_review
from castnet.line.page.station import Station
from castnet.line.page.today_tab import show_chart, show_today
from castnet.line.record import images, models
from castnet.line.review import decide
from castnet.line.today import hours_of
from tests.conftest import PATIENCE
from tests.line.conftest import Put, zone_at_noon


def opened(show: Callable[[], None]) -> AppTest:
    def script(show):  # type: ignore[no-untyped-def]  # which is taken as text, without the names around it
        show()

    page = AppTest.from_function(script, kwargs={"show": show}).run(timeout=PATIENCE)
    assert not page.exception
    return page


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Now, where it is about noon."""
    monkeypatch.setenv("TZ", zone_at_noon())
    time.tzset()
    yield time.time()
    monkeypatch.undo()
    time.tzset()


def test_a_name_is_no_html_and_an_unsure_verdict_says_why(inspector: Inspector) -> None:
    content = png(np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8))
    verdict = inspector.inspect(content)
    (shown,) = opened(partial(show_one, inspector, Casting("<b>&.jpeg", content), verdict)).markdown
    assert "&lt;b&gt;&amp;.jpeg" in shown.value
    assert "<b>&" not in shown.value
    assert "Unfamiliar: unlike what the model was trained on" in shown.value
    assert f"width: {100 * verdict.p_defect}%" in shown.value
    assert f"--cut: {100 * verdict.threshold}%" in shown.value


def test_a_card_calls_each_rate_by_its_name(inspector: Inspector) -> None:
    rates = {"escape_rate": 0.01, "overkill_rate": 0.02, "accuracy": 0.97, "auroc": 0.99}
    intervals = {
        "escape_rate_interval": [0.005, 0.015],
        "overkill_rate_interval": [0.01, 0.03],
        "intervals": "By part.",
    }
    judged = {"test": {**rates, **intervals}, "validation": {"accuracy": 0.5}, "finished": False}
    card = {**inspector.card, **judged, "castnet": "![x](http://x/y.png)"}
    page = opened(partial(show_card, card))
    shown = page.table[-1].value.to_dict()
    assert shown == {
        "test": {"escape rate": "1.00%", "overkill rate": "2.00%", "accuracy": "97.00%", "AUROC": "0.9900"},
        "validation": {"escape rate": "–", "overkill rate": "–", "accuracy": "50.00%", "AUROC": "–"},
    }
    said = " ".join(caption.value for caption in page.caption)
    assert "the escape rate is within 0.50%–1.50% and the overkill rate within 1.00%–3.00%. By part" in said
    assert r"\!\[x\]" in said, "else whoever looks at it would fetch what the model's author names"
    assert "Of a training run that did not end" in page.warning[0].value


def test_models_have_their_own_shares(engine: sa.Engine, put: Put, inspector: Inspector, noon: float) -> None:
    put(6, time=noon)
    put(3, time=noon, verdict="defective")
    put(1, time=noon, verdict="unsure", reason="doubtful")
    with engine.begin() as connection:
        for model, since in (("a" * 64, noon - 60), (inspector.digest, noon)):
            connection.execute(models.insert(), {"model": model, "card": json.dumps(inspector.card), "since": since})
    shown = opened(partial(show_models, Station(inspector, engine, None))).dataframe[0].value
    assert shown["model"].tolist() == [f"{inspector.digest[:8]}, this page's", "a" * 8]
    assert shown[["verdicts", "rejected", "unsure"]].to_numpy().tolist() == [
        ["0", "–", "–"],
        ["10", "30.0 %", "10.0 %"],
    ]


def test_today_is_counted_beside_the_week_and_says_which_castings_cannot_be_shown(
    engine: sa.Engine, put: Put, inspector: Inspector, test_images: list[Path], noon: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kept = {"image": "1" * 64, "content": test_images[0].read_bytes(), "bytes": 1, "time": noon}
    with engine.begin() as connection:
        connection.execute(images.insert(), kept)
    put(89, time=noon - 86_400)
    put(1, time=noon - 86_400, verdict="defective")
    put(7, time=noon)
    put(1, time=noon, verdict="unsure", reason="doubtful")
    put(1, time=noon, verdict="defective")
    put(1, time=noon, verdict="defective", image="1" * 64, name="<b>.jpeg")
    charts: list[tuple[Any, ...]] = []

    def draw(word: str, hits: np.ndarray, _: object, sizes: np.ndarray, mean: float) -> None:
        charts.append((word, hits.sum(), sizes.sum(), mean))

    monkeypatch.setattr(today_tab, "show_chart", draw)
    page = opened(partial(show_today, Station(inspector, engine, None)))
    assert [(shown.label, shown.value, shown.delta) for shown in page.metric] == [
        ("good", "7", "70.0 %"),
        ("rejected", "2", "20.0 %"),
        ("unsure", "1", "10.0 %"),
        ("judged", "10", ""),
    ]
    assert charts == [("rejected", 2, 10, 0.03), ("unsure", 1, 10, 0.01)]
    assert any("Of the last 2, 1 have no image on record" in caption.value for caption in page.caption)
    (picture,) = page.get("image")
    assert picture.proto.imgs[0].caption.endswith(r"\<b\>\.jpeg · by another model")


def test_hours_outside_the_limits_are_named_and_quiet_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(st, "warning", warned.append)
    sizes, hits = np.zeros(24, np.int64), np.zeros(24, np.int64)
    sizes[[8, 9, 10]] = 1000
    hits[[8, 9, 10]] = 100, 20, 250
    show_chart("rejected", hits, hours_of(date(2026, 6, 1)), sizes, mean=0.1)
    assert warned == ["Outside the limits: 09:00 (2.0 % of 1,000), 10:00 (25.0 % of 1,000)"]


def test_each_rate_follows_from_what_people_decided(
    engine: sa.Engine, put: Put, inspector: Inspector, noon: float
) -> None:
    passed, rejected = put(10, time=noon), put(4, time=noon, verdict="defective")
    unsure = put(2, time=noon, verdict="unsure", reason="doubtful", name="<b>.jpeg", image="1" * 64)
    with engine.begin() as connection:
        connection.execute(images.insert(), {"image": "1" * 64, "content": b"none", "bytes": 4, "time": noon})
        decide(connection, unsure[0], "unsure", False)
        for number in passed:
            decide(connection, number, "passed", number == passed[0])
        for number in rejected:
            decide(connection, number, "rejected", number != rejected[0])
    page = opened(partial(show_review, Station(inspector, engine, None)))
    assert "&lt;b&gt;.jpeg" in page.markdown[0].value
    assert ">Unsure: doubtful<" in page.markdown[0].value
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown == {"escape rate": "25.00 %", "overkill rate": "8.33 %"}  # of 4 defective ones and of 9 + 1 + 2 good


@pytest.mark.parametrize(
    ("decided", "missing"),
    [
        (("passed",), "decide on some of each verdict"),
        (("passed", "rejected"), "none that it is a share of was found yet"),
    ],
)
def test_a_rate_that_is_not_known_yet_says_what_is_missing(
    engine: sa.Engine, put: Put, inspector: Inspector, noon: float, decided: tuple[str, ...], missing: str
) -> None:
    (passed,), (rejected,) = put(1, time=noon), put(1, time=noon, verdict="defective")
    with engine.begin() as connection:
        for number, stratum in ((passed, "passed"), (rejected, "rejected")):
            if stratum in decided:
                decide(connection, number, stratum, False)
    page = opened(partial(show_review, Station(inspector, engine, None)))
    assert next(metric.value for metric in page.metric if metric.label == "escape rate") == "–"
    assert f"between 0.00 % and 100.00 % (95 %): {missing}" in [caption.value for caption in page.caption]


def test_a_number_that_is_none_is_a_dash_and_a_time_that_no_calendar_has_stays_one() -> None:
    assert [percent(None), percent(0.1234), percent(0.1234, 2)] == ["–", "12.3 %", "12.34 %"]
    assert [clock(time) for time in (1e300, -1e17, float("nan"))] == ["1e+300", "-1e+17", "nan"]
