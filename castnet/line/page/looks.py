"""How verdicts look on the page."""

import re
from contextlib import suppress
from datetime import datetime
from io import BytesIO

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from castnet.errors import UserError, printable
from castnet.imaging.decode import decode
from castnet.line.inspector import Inspector

COLOURS = {"good": "#1f7a4d", "defective": "#b3261e", "unsure": "#8a5a00"}
REASONS = {
    None: "",
    "unfamiliar": "Unfamiliar: unlike what the model was trained on. Another object, light, focus, place or movement?",
    "doubtful": "Doubtful: too close to call; a second look costs less than either mistake.",
}
STYLE = """
<style>
  .block-container { padding-top: 3.5rem; max-width: 76rem; }
  .sized { container-type: inline-size; }
  .verdict { font-size: min(3.4rem, 21cqi); font-weight: 700; line-height: 1.1; }
  .judged { font-size: 1.7rem; font-weight: 700; line-height: 1.3; }
  .quiet { color: #55636f; }
  .meter { position: relative; height: 1.1rem; margin: 2.1rem 0 2rem; border-radius: .3rem;
           background: linear-gradient(to right, #d6eadf var(--cut), #f3e6c8 var(--cut) var(--upper),
                                       #f6d9d6 var(--upper)); }
  .meter .fill { height: 100%; border-radius: .3rem; }
  .meter .cut { position: absolute; top: -.35rem; bottom: -.35rem; width: 2px; background: #1b2a3a; }
  .meter .label { position: absolute; top: -1.75rem; transform: translateX(-50%); font-size: .85rem; }
  .meter .label { white-space: nowrap; }
  .meter .end { position: absolute; top: 1.25rem; font-size: .8rem; color: #55636f; }
</style>
"""


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(content: bytes) -> bytes | str:
    """A recorded image as a PNG file, turned as the heat map beside it is, or why there is none."""
    try:
        return png(decode(content))
    except UserError as error:
        return reason(error)


@st.cache_data(max_entries=64)
def heatmap(_inspector: Inspector, model: str, image: str, _content: bytes) -> bytes | str:
    """The heat map of a recorded image as a PNG file, made once for all visitors, or why there is none."""
    try:
        return png(_inspector.heatmap(_content))
    except UserError as error:
        return reason(error)


def reason(error: UserError) -> str:
    return str(error).removeprefix("image: ")


def plain(text: str) -> str:
    """Text that the page shows as it is: what it would take for Markdown is escaped, and what cannot be printed."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text))


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}".replace("%", " %")


def clock(time: float, form: str = "%H:%M:%S") -> str:
    """A time in seconds since 1970 on this machine's clock; a number that no calendar has stays one."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(time).strftime(form)
    return str(time)
