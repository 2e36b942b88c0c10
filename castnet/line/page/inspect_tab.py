"""The tab on which castings are dropped and judged."""

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from castnet.drawn.folder import draw
from castnet.errors import UserError, printable
from castnet.imaging.decode import decode
from castnet.line.inspector import Inspector
from castnet.line.launch import UPLOAD_MB
from castnet.line.page.card import show_card
from castnet.line.page.looks import COLOURS, REASONS, plain, png, reason
from castnet.line.page.station import Station
from castnet.line.predict import Result, cell

EXAMPLES, EXAMPLE_WIDTH = 6, 142  # pixels
THUMBNAIL = 96  # pixels


@dataclass(frozen=True)
class Casting:
    """An image that the page was given: its name, the file's content, and the number of its upload if it was one."""

    name: str
    content: bytes
    upload: str = ""


@st.cache_data
def examples() -> list[Casting]:
    """Drawn castings, every second one defective, as PNG files."""
    drawn = [draw((2026, index), defective=index % 2 == 1) for index in range(EXAMPLES)]
    return [
        Casting(f"drawn, {' and '.join(sorted({d.kind.replace('_', ' ') for d in defects})) or 'good'}", png(pixels))
        for pixels, defects in drawn
    ]


def judge(station: Station, castings: Sequence[Casting]) -> list[Result]:
    """The verdicts on uploads, or why there is none: each judged and recorded once, however often the page is drawn."""
    keys = [(station.inspector.digest, casting.upload) for casting in castings]
    # Whoever presses something meanwhile starts to draw the page anew, beside this.
    with st.session_state.setdefault("judging", Lock()):
        done: dict[tuple[str, str], Result] = st.session_state.setdefault("judged", {})
        recorded: set[str] = st.session_state.setdefault("recorded", set())  # by whichever model
        new = [casting for casting, key in zip(castings, keys, strict=True) if key not in done]
        results = station.inspector.inspect_many(casting.content for casting in new)
        for casting, result in zip(new, results, strict=True):
            done[station.inspector.digest, casting.upload] = result
            if station.recorder and casting.upload not in recorded and not isinstance(result, UserError):
                station.recorder.put(casting.name, casting.content, result)
                recorded.add(casting.upload)
        st.session_state["judged"] = {key: done[key] for key in keys}
    return [done[key] for key in keys]


def show_one(inspector: Inspector, casting: Casting, verdict: Result) -> None:
    """One casting: verdict, P(defect) against the threshold, and where the evidence lies."""
    if isinstance(verdict, UserError):
        st.error(plain(f"{casting.name}: {reason(verdict)}"))
        return
    colour, word = COLOURS[verdict.verdict], verdict.verdict.capitalize()
    p, cut = 100 * verdict.p_defect, 100 * verdict.threshold
    upper = 100 * (inspector.card.get("defective_from") or verdict.threshold)
    judged, left, right = st.columns([1.1, 1, 1], gap="medium")
    judged.markdown(
        f"""
<div class="quiet">{html.escape(printable(casting.name))}</div>
<div class="sized"><div class="verdict" data-testid="verdict" style="color: {colour}">{word}</div></div>
<div class="quiet">{html.escape(printable(verdict.class_name))}, P(defect) = <b>{verdict.p_defect:.4f}</b>,
unfamiliarity {verdict.unfamiliarity:.2f}, judged in {verdict.latency_ms:.1f} ms</div>
<div>{REASONS[verdict.reason]}</div>
<div class="meter" style="--cut: {cut}%; --upper: {upper}%" role="meter" aria-label="P(defect)" aria-valuemin="0"
     aria-valuemax="1" aria-valuenow="{verdict.p_defect:.4f}">
  <div class="fill" style="width: {p}%; background: {colour}"></div>
  <div class="cut" style="left: {cut}%"></div><div class="cut" style="left: {upper}%"></div>
  <div class="label" style="left: clamp(3rem, {cut}%, 100% - 3rem)">threshold {verdict.threshold:.3g}</div>
  <div class="end" style="left: 0">0</div><div class="end" style="right: 0">1</div>
</div>""",
        unsafe_allow_html=True,
    )
    left.image(decode(casting.content), caption="The casting", width="stretch", alt="the casting")
    right.image(
        inspector.heatmap(casting.content),
        caption="Red: what speaks for a defect",
        width="stretch",
        alt="heat map of the evidence for a defect",
    )


def show_many(station: Station, castings: Sequence[Casting]) -> None:
    """Many castings: counts, a table to sort, its download, and the row that was clicked on."""
    with st.spinner(f"Inspecting {len(castings):,} images"):
        results = judge(station, castings)
        table = pd.DataFrame([_row(casting, result) for casting, result in zip(castings, results, strict=True)])
    counts = table["verdict"].value_counts()
    for column, word in zip(st.columns(4), ("defective", "unsure", "good", "not read"), strict=True):
        column.metric(word, f"{counts.get(word, 0):,}")
    for casting, result in zip(castings, results, strict=True):
        if isinstance(result, UserError):
            st.error(plain(f"{casting.name}: {reason(result)}"))
    st.download_button(
        "Download verdicts (CSV)",
        table.drop(columns="image").map(cell).to_csv(index=False),
        "castnet.csv",
        "text/csv",
        on_click="ignore",
    )
    event = st.dataframe(
        table,
        hide_index=True,
        row_height=56,
        placeholder="",
        on_select="rerun",
        selection_mode="single-row",
        column_order=["image", "file", "verdict", "reason", "p_defect", "unfamiliarity"],
        column_config={
            "image": st.column_config.ImageColumn("casting", width="small"),
            "p_defect": st.column_config.ProgressColumn("P(defect)", format="%.4f", min_value=0, max_value=1),
        },
    )
    st.caption(
        f"Threshold {station.inspector.threshold:.3g}. A click on a heading sorts, a tick on the left opens a casting."
    )
    for index in event.selection.rows:
        show_one(station.inspector, castings[index], results[index])


def _row(casting: Casting, result: Result) -> dict[str, object]:
    if isinstance(result, UserError):
        return {"image": None, "file": casting.name, "verdict": "not read", "reason": reason(result)}
    thumbnail = Image.fromarray(decode(casting.content))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    return {
        "image": f"data:image/png;base64,{b64encode(png(np.asarray(thumbnail))).decode()}",
        "file": casting.name,
        "verdict": result.verdict,
        "p_defect": result.p_defect,
        "unfamiliarity": result.unfamiliarity,
        "class": result.class_name,
        "reason": result.reason,
    }


def show_inspect(station: Station) -> None:
    """The whole tab."""
    with st.sidebar:
        st.header("The model")
        show_card(station.inspector.card)
    st.title("Inspect castings")
    kept = "They are recorded, and what is drawn below is not." if station.recorder else "They stay in memory alone."
    uploads = st.file_uploader(
        f"Drop one photograph of a casting, or a hundred, of up to {UPLOAD_MB} MB each. {kept}",
        accept_multiple_files=True,
        on_change=lambda: st.session_state.pop("example", None),
    )
    castings = [Casting(upload.name, upload.getvalue(), upload.file_id) for upload in uploads]
    with st.expander("No image at hand? Click a drawn one.", expanded=not uploads), st.container(horizontal=True):
        for index, example in enumerate(examples()):
            with st.container(width=EXAMPLE_WIDTH):
                st.image(example.content, width="stretch", alt=example.name)
                if st.button(example.name.removeprefix("drawn, "), key=f"pick-{index}", width="stretch"):
                    st.session_state["example"] = index
    if "example" in st.session_state:
        example = examples()[st.session_state["example"]]
        show_one(station.inspector, example, station.inspector.inspect(example.content))
    elif len(castings) == 1:
        show_one(station.inspector, castings[0], *judge(station, castings))
    elif castings:
        show_many(station, castings)
