"""The tab that says what the line did on a day, and whether that is usual."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import streamlit as st
from numpy.typing import NDArray

from castnet.line.page.looks import COLOURS, clock, heatmap, percent, picture, plain
from castnet.line.page.station import Station, telling_of_away
from castnet.line.record import verdicts
from castnet.line.today import (
    BASELINE_DAYS,
    Drift,
    Row,
    control_limits,
    count,
    count_by_hour,
    drift,
    hours_of,
    last_rejected,
    last_verdicts,
    read_cards,
)

SHOWN = 6  # rejected castings
LEAST = 0.05  # of an axis of shares: one with nothing but zeros would have 0 % in its middle
REFRESH = 60  # seconds
UNLIKELY = 0.001  # p-value; of as many tests, made all day, one in a thousand must not be an alarm
QUANTITY = {"p_defect": "P(defect)", "unfamiliarity": "unfamiliarity"}


@st.fragment(run_every=REFRESH)
@telling_of_away
def show_today(station: Station) -> None:
    """The whole tab."""
    st.title("Today")
    # Another widget every day, or a page left open overnight would go on showing yesterday.
    day = st.date_input("Day", "today", max_value="today", width=160, key=f"day, as of {date.today()}")
    assert isinstance(day, date)
    edges = hours_of(day)
    start, end = float(edges[0]), float(edges[-1])
    with station.record() as connection:
        counts = count_by_hour(connection, edges)
        if not counts.any():
            last = connection.execute(sa.select(sa.func.max(verdicts.c.time))).scalar()
            st.info(f"No verdicts on that day. The last one is of {clock(last, '%Y-%m-%d %H:%M')}." if last else
                    "No verdicts yet.")  # fmt: skip
            return
        first = float(hours_of(day - timedelta(BASELINE_DAYS - 1))[0])
        week = count(connection, first, start) + counts.sum(0)
        compared = list(drift(last_verdicts(connection, start, end), read_cards(connection)))
        rejected = last_rejected(connection, start, end, SHOWN)
    show_counts(counts.sum(0))
    show_chart("rejected", counts[:, 1], edges, counts.sum(1), week[1] / week.sum())
    show_chart("unsure", counts[:, 2:].sum(1), edges, counts.sum(1), week[2:].sum() / week.sum())
    st.caption(
        f"A share in each hour, and what is usual in grey for as many castings, with p̄ (dashed), the share in the "
        f"{BASELINE_DAYS} days up to and with this one, {week.sum():,} castings (Shewhart's p-chart, with a binomial "
        "count's limits). If nothing changes, one hour in 370 or fewer lie outside."
    )
    show_drift(compared)
    show_rejected(station, rejected)


def show_counts(counts: NDArray[np.int64]) -> None:
    good, defective, unfamiliar, doubtful = counts.tolist()
    total = int(counts.sum())
    with st.container(horizontal=True):
        for word, number in (("good", good), ("rejected", defective), ("unsure", unfamiliar + doubtful)):
            st.metric(word, f"{number:,}", percent(number / total), delta_color="off", delta_arrow="off")
        st.metric("judged", f"{total:,}")
    st.caption(f"Unsure: {unfamiliar:,} unfamiliar, {doubtful:,} doubtful.")


def show_chart(
    word: str, hits: NDArray[np.int64], edges: NDArray[np.float64], sizes: NDArray[np.int64], mean: float
) -> None:
    """A p-chart of one share by hour, and in words the hours that lie outside its limits."""
    lower, upper = control_limits(mean, sizes)
    rows: list[dict[str, Any]] = []
    for hit, size, low, high, hour in zip(hits.tolist(), sizes.tolist(), lower, upper, hour_names(edges), strict=True):
        row: dict[str, Any] = {"hour": hour, "castings": size}
        if size:
            share = hit / size
            row |= {"share": share, "lower": low, "upper": high, "mean": mean, "outside": not low <= share <= high}
        rows.append(row)
    st.subheader(f"Share {word} by hour")
    outside = [row for row in rows if row.get("outside")]
    if outside:
        named = ", ".join(f"{row['hour']} ({percent(row['share'])} of {row['castings']:,})" for row in outside)
        st.warning(f"Outside the limits: {named}")
    colour = COLOURS["defective" if word == "rejected" else "unsure"]
    # Else in the order of their letters, in which a zone's winter may come before its summer.
    in_order = [row["hour"] for row in rows]
    x = {
        "field": "hour",
        "type": "ordinal",
        "title": None,
        "sort": in_order,
        "axis": {"labelAngle": 0, "labelOverlap": True},
    }
    highest = max((max(row["share"], row["upper"]) for row in rows if row["castings"]), default=0)
    scale = {"domain": [0, max(highest, LEAST)], "nice": True}
    y = {"type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 4}, "scale": scale}
    tooltip = [
        {"field": "hour"},
        {"field": "castings", "format": ","},
        *({"field": name, "format": ".2%"} for name in ("share", "lower", "upper", "mean")),
    ]
    st.vega_lite_chart(
        pd.DataFrame(rows),
        {
            "height": 190,
            "encoding": {"x": x, "tooltip": tooltip},
            "layer": [
                {
                    "mark": {"type": "bar", "color": "#e3e9f0", "width": {"band": 1}},
                    "encoding": {"y": {**y, "field": "lower"}, "y2": {"field": "upper"}},
                },
                {
                    "mark": {"type": "line", "color": "#55636f", "strokeDash": [4, 4], "strokeWidth": 1},
                    "encoding": {"y": {**y, "field": "mean"}},
                },
                {
                    "mark": {"type": "line", "color": colour, "strokeWidth": 1.5},
                    "encoding": {"y": {**y, "field": "share"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "color": colour, "opacity": 1},
                    "encoding": {
                        "y": {**y, "field": "share"},
                        "size": {"condition": {"test": "datum.outside", "value": 130}, "value": 30},
                    },
                },
            ],
        },
        width="stretch",
    )


def hour_names(edges: NDArray[np.float64]) -> list[str]:
    """What hours are called that begin at all edges but the last; the zone tells two with one name apart."""
    hours = [datetime.fromtimestamp(edge).astimezone() for edge in edges[:-1].tolist()]
    called = [f"{hour:%H:%M}" for hour in hours]
    return [name if called.count(name) == 1 else f"{hour:%H:%M %Z}" for name, hour in zip(called, hours, strict=True)]


def show_drift(compared: Sequence[Drift]) -> None:
    st.subheader("Drift")
    if not compared:
        st.caption("The models of these verdicts carry no validation figures to compare with.")
        return
    table = pd.DataFrame(
        {
            "": QUANTITY[found.quantity],
            "against validation": "differs" if found.p_value < UNLIKELY else "alike",
            "distance": f"{found.distance:.2f}",
            "p-value": "< 0.001" if found.p_value < UNLIKELY else f"{found.p_value:.3f}",
            "verdicts": f"{found.verdicts:,}",
            "images": f"{found.images:,}",
            "model": found.model[:8],
        }
        for found in compared
    )
    st.dataframe(table, hide_index=True, width="stretch")
    st.caption(
        "The day's last verdicts against the model's own validation images: the largest distance between the two "
        f"distributions, and the p-value of the two-sample Kolmogorov–Smirnov test; below {UNLIKELY:g} they differ. "
        "P(defect) differs, too, where the line makes fewer defective castings than the validation images have; "
        "unfamiliarity does so less, and tells of light, focus or place."
    )


def show_rejected(station: Station, rejected: Sequence[Row]) -> None:
    st.subheader("Last rejected")
    if not rejected:
        st.caption("None.")
    kept = [row for row in rejected if row.content is not None]
    if len(kept) < len(rejected):
        st.caption(
            f"Of the last {len(rejected)}, {len(rejected) - len(kept)} have no image on record; --keep rejected keeps "
            "them, up to --keep-bytes."
        )
    for start in range(0, len(kept), 3):
        for column, row in zip(st.columns(3), kept[start : start + 3], strict=False):
            show_casting(station, row, column)


def show_casting(station: Station, row: Row, place: Any) -> None:
    """A recorded casting with its heat map, if this page's model judged it."""
    caption = f"{clock(row.time)} · P(defect) {row.p_defect:.4f} · {plain(row.name or row.image[:8])}"
    if row.model == station.inspector.digest:
        drawn = heatmap(station.inspector, station.inspector.digest, row.image, row.content)
    else:
        caption, drawn = f"{caption} · by another model", picture(row.content)
    if isinstance(drawn, str):
        place.caption(f"{caption}: {drawn}")
    else:
        place.image(drawn, caption=caption, width="stretch", alt=f"heat map of {row.name or row.image[:8]}")
