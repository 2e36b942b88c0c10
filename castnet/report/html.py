"""Pages that stand alone."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from castnet.pages import templates

TEMPLATES = templates("castnet.report")


def render(template: str, pictures: Mapping[str, bytes], **values: Any) -> str:
    """A page as HTML, pictures included.

    Args:
        template: file beside this module.
        pictures: PNG files by name.
        values: what else the template shows.
    """
    encoded = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    return TEMPLATES.get_template(template).render(pictures=encoded, **values)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
