"""How pages that are made of templates show text."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from castnet.errors import printable


def templates(package: str) -> Environment:
    """The templates beside a package's modules; what they show is escaped, as HTML and as `printable` does it."""
    return Environment(
        loader=PackageLoader(package, "."), autoescape=True, undefined=StrictUndefined, finalize=_printable
    )


def _printable(value: Any) -> Any:
    # Asked first since it is quick: pictures are long.
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if is_text and not value.isprintable() else value
