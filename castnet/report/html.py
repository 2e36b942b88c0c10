"""One self-contained page per evaluation."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

TEMPLATES = Environment(
    loader=PackageLoader("castnet.report", "."), autoescape=select_autoescape(["html", "j2"]), undefined=StrictUndefined
)


def render(metrics: Mapping[str, Any], figures: Mapping[str, Figure], errors: Sequence[str]) -> str:
    """The page as HTML, pictures included.

    Args:
        metrics: what metrics.json holds.
        figures: pictures by name, those of `castnet.report.evaluation.Evaluation.figures`.
        errors: files of the misclassified images, escapes first.
    """
    pictures = {name: base64.b64encode(_png(figure)).decode() for name, figure in figures.items()}
    return TEMPLATES.get_template("report.html.j2").render(metrics=metrics, pictures=pictures, errors=errors)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
