"""A model's card, as the page shows it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from castnet.line.page.looks import plain

RATES = {"escape_rate": "escape rate", "overkill_rate": "overkill rate", "accuracy": "accuracy"}


def show_card(card: Mapping[str, Any]) -> None:
    """What a model was trained on, how good it is there, and where it cuts."""
    data = card["data"]
    if card.get("finished") is False:
        st.warning("Of a training run that did not end: no threshold was chosen for it.")
    st.markdown(f"Trained on images of **{plain(data['root'])}** (data={plain(data['source'])}).")
    st.caption(plain(data["protocol"]))
    if "counts" in data:
        st.table(pd.DataFrame(data["counts"]).rename(index=plain, columns=plain).T)
    measured = {"test": card.get("test"), "validation": card.get("validation")}
    columns = {
        name: [*(_shown(metrics.get(key), ".2%") for key in RATES), _shown(metrics.get("auroc"), ".4f")]
        for name, metrics in measured.items()
        if metrics
    }
    if columns:
        st.subheader("How good it is there")
        st.table(pd.DataFrame(columns, index=[*RATES.values(), "AUROC"]))
        st.caption(
            "By the threshold alone, before any is called unsure: of the defective castings those below it, of the "
            "good ones those that reach it, whether rejected or doubtful."
        )
    if "intervals" in (test := card.get("test") or {}):
        ends = {
            rate: "–".join(f"{end:.2%}" for end in test.get(f"{rate}_interval") or ())
            for rate in ("escape_rate", "overkill_rate")
        }
        st.caption(
            f"On test images the escape rate is within {ends['escape_rate']} and the overkill rate within "
            f"{ends['overkill_rate']}. {plain(test['intervals'])}"
        )
    st.caption(
        f"Called good below P(defect) = {card['threshold']:.3g}, defective from "
        f"{card.get('defective_from') or card['threshold']:.3g} on. Temperature {card['temperature']:.3g}, "
        f"{card['image_size']} × {card['image_size']} pixels. Exported {plain(card['exported'][:10])} by castnet "
        f"{plain(card['castnet'])}."
    )


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
