"""The page: drop castings, see verdicts. `castnet app` starts it."""

import html
import sys
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from castnet.drawn.folder import draw
from castnet.errors import UserError
from castnet.imaging.decode import decode
from castnet.line.inspector import Inspector, Verdict
from castnet.line.launch import has_login
from castnet.line.predict import cell

COLOURS = {"good": "#1f7a4d", "defective": "#b3261e", "unsure": "#8a5a00"}
REASONS = {
    None: "",
    "unfamiliar": "Unfamiliar: unlike what the model was trained on. Another object, light, focus or place?",
    "doubtful": "Doubtful: too close to call; a second look costs less than either mistake.",
}
EXAMPLES = 6
RATES = {"escape_rate": "escape rate", "overkill_rate": "overkill rate", "accuracy": "accuracy"}
THUMBNAIL = 96  # pixels
STYLE = """
<style>
  .block-container { padding-top: 2.5rem; max-width: 76rem; }
  .verdict { font-size: 3.4rem; font-weight: 700; line-height: 1.1; }
  .quiet { color: #55636f; }
  .meter { position: relative; height: 1.1rem; margin: 2.1rem 0 2rem; border-radius: .3rem;
           background: linear-gradient(to right, #d6eadf var(--cut), #f6d9d6 var(--cut)); }
  .meter .fill { height: 100%; border-radius: .3rem; }
  .meter .cut { position: absolute; top: -.35rem; bottom: -.35rem; width: 2px; background: #1b2a3a; }
  .meter .label { position: absolute; top: -1.75rem; transform: translateX(-50%); font-size: .85rem; }
  .meter .label { white-space: nowrap; }
  .meter .end { position: absolute; top: 1.25rem; font-size: .8rem; color: #55636f; }
</style>
"""


@dataclass(frozen=True)
class Casting:
    """An image that the page was given: its name and the file's content."""

    name: str
    content: bytes


@st.cache_resource(max_entries=1)
def load(model: str, modified: int) -> Inspector:
    """The model, loaded once for all visitors and again when its file changes."""
    return Inspector(model)


@st.cache_data
def examples() -> list[Casting]:
    """Drawn castings, every second one defective, as PNG files."""
    drawn = [draw((2026, index), defective=index % 2 == 1) for index in range(EXAMPLES)]
    return [
        Casting(f"drawn, {' and '.join(sorted({d.kind.replace('_', ' ') for d in defects})) or 'good'}", _png(pixels))
        for pixels, defects in drawn
    ]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def reason(error: UserError) -> str:
    return str(error).removeprefix("image: ")


def show_card(inspector: Inspector) -> None:
    """The model's card: what it was trained on, how good it is there, and where it cuts."""
    card = inspector.card
    data = card["data"]
    st.header("The model")
    if card.get("finished") is False:
        st.warning("Of a training run that did not end: no threshold was chosen for it.")
    st.markdown(f"Trained on **{data['source']}** castings (`{data['root']}`).")
    st.caption(data["protocol"])
    if "counts" in data:
        st.dataframe(pd.DataFrame(data["counts"]).T, width="stretch")
    measured = {"test": card.get("test"), "validation": card["validation"]}
    columns = {
        name: [*(_shown(metrics[key], ".2%") for key in RATES), _shown(metrics["auroc"], ".4f")]
        for name, metrics in measured.items()
        if metrics
    }
    if columns:
        st.subheader("How good it is there")
        st.table(pd.DataFrame(columns, index=[*RATES.values(), "AUROC"]))
        st.caption("Escape rate: defective castings that pass. Overkill rate: good castings that are rejected.")
    if "intervals" in (test := card.get("test", {})):
        ends = {
            rate: "–".join(f"{end:.2%}" for end in test[f"{rate}_interval"] or ())
            for rate in ("escape_rate", "overkill_rate")
        }
        st.caption(
            f"On test images the escape rate is within {ends['escape_rate']} and the overkill rate within "
            f"{ends['overkill_rate']}. {test['intervals']}"
        )
    st.caption(
        f"Called defective from P(defect) = {card['threshold']:.3g}. Temperature {card['temperature']:.3g}, "
        f"{card['image_size']} × {card['image_size']} pixels. Exported {card['exported'][:10]} by castnet "
        f"{card['castnet']}."
    )


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def show_one(inspector: Inspector, casting: Casting) -> None:
    """One casting: verdict, P(defect) against the threshold, and where the evidence lies."""
    try:
        verdict = inspector.inspect(casting.content)
    except UserError as error:
        st.error(f"{casting.name}: {reason(error)}")
        return
    colour, word = COLOURS[verdict.verdict], verdict.verdict.capitalize()
    p, cut = 100 * verdict.p_defect, 100 * verdict.threshold
    judged, left, right = st.columns([1.1, 1, 1], gap="medium")
    judged.markdown(
        f"""
<div class="quiet">{html.escape(casting.name)}</div>
<div class="verdict" data-testid="verdict" style="color: {colour}">{word}</div>
<div class="quiet">{html.escape(verdict.class_name)}, P(defect) = <b>{verdict.p_defect:.4f}</b>,
unfamiliarity {verdict.unfamiliarity:.2f}, judged in {verdict.latency_ms:.1f} ms</div>
<div>{REASONS[verdict.reason]}</div>
<div class="meter" style="--cut: {cut}%" role="meter" aria-label="P(defect)" aria-valuemin="0" aria-valuemax="1"
     aria-valuenow="{verdict.p_defect:.4f}">
  <div class="fill" style="width: {p}%; background: {colour}"></div>
  <div class="cut" style="left: {cut}%"></div>
  <div class="label" style="left: {min(max(cut, 8), 92)}%">threshold {verdict.threshold:.3g}</div>
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


def show_many(inspector: Inspector, castings: Sequence[Casting]) -> None:
    """Many castings: counts, a table to sort, its download, and the row that was clicked on."""
    with st.spinner(f"Inspecting {len(castings):,} images"):
        results = list(inspector.inspect_many(casting.content for casting in castings))
        table = pd.DataFrame([_row(casting, result) for casting, result in zip(castings, results, strict=True)])
    counts = table["verdict"].value_counts()
    for column, word in zip(st.columns(4), ("defective", "unsure", "good", "not read"), strict=True):
        column.metric(word, f"{counts.get(word, 0):,}")
    for casting, result in zip(castings, results, strict=True):
        if isinstance(result, UserError):
            st.error(f"{casting.name}: {reason(result)}")
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
        on_select="rerun",
        selection_mode="single-row",
        column_order=["image", "file", "verdict", "reason", "p_defect", "unfamiliarity"],
        column_config={
            "image": st.column_config.ImageColumn("casting", width="small"),
            "p_defect": st.column_config.ProgressColumn("P(defect)", format="%.4f", min_value=0, max_value=1),
        },
    )
    st.caption(f"Threshold {inspector.threshold:.3g}. A click on a heading sorts, a tick on the left opens a casting.")
    for index in event.selection.rows:
        show_one(inspector, castings[index])


def _row(casting: Casting, result: Verdict | UserError) -> dict[str, object]:
    if isinstance(result, UserError):
        return {"image": None, "file": casting.name, "verdict": "not read", "reason": reason(result)}
    thumbnail = Image.fromarray(decode(casting.content))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    return {
        "image": f"data:image/png;base64,{b64encode(_png(np.asarray(thumbnail))).decode()}",
        "file": casting.name,
        "verdict": result.verdict,
        "p_defect": result.p_defect,
        "unfamiliarity": result.unfamiliarity,
        "class": result.class_name,
        "reason": result.reason,
    }


def page(model: Path) -> None:
    st.set_page_config("castnet", page_icon="🔩", layout="wide")
    st.markdown(STYLE, unsafe_allow_html=True)
    if has_login() and not st.user.is_logged_in:
        st.button("Log in", on_click=st.login)
        st.stop()
    inspector = load(str(model), model.stat().st_mtime_ns)
    with st.sidebar:
        show_card(inspector)
    st.title("Inspect castings")
    uploads = st.file_uploader(
        "Drop one photograph of a casting, or a hundred. They stay in memory and are gone when this page is closed.",
        accept_multiple_files=True,
        on_change=lambda: st.session_state.pop("example", None),
    )
    with st.expander("No image at hand? Click a drawn one.", expanded=not uploads):
        for index, (column, example) in enumerate(zip(st.columns(EXAMPLES), examples(), strict=True)):
            column.image(example.content, width="stretch", alt=example.name)
            if column.button(example.name.removeprefix("drawn, "), key=f"pick-{index}", width="stretch"):
                st.session_state["example"] = index
    if "example" in st.session_state:
        show_one(inspector, examples()[st.session_state["example"]])
    elif len(uploads) == 1:
        show_one(inspector, Casting(uploads[0].name, uploads[0].getvalue()))
    elif uploads:
        show_many(inspector, [Casting(upload.name, upload.getvalue()) for upload in uploads])


if __name__ == "__main__":
    page(Path(sys.argv[1]))
