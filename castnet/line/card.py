"""What a model says of itself, believed only as far as it is what `castnet export` writes."""

import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

# In the order of the numbers that the model gives; the last two are reasons to be unsure.
VERDICTS = ["good", "defective", "doubtful", "unfamiliar"]
MAX_CARD = 1_000_000  # characters; what is exported has a few thousand


def read_card(text: str) -> dict[str, Any]:
    """The card in a model's metadata, each entry of the type and in the range that the line relies on.

    Raises:
        ValueError: an entry is missing or is not what it should be, or the text is no JSON object.
    """
    if len(text) > MAX_CARD:
        raise ValueError(f"its card has {len(text):,} characters")
    try:
        card = json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("its card is nested too deeply") from error
    if not isinstance(card, dict):
        raise ValueError("its card is no object")
    for key, (expected, holds) in EXPECTED.items():
        if not holds(card.get(key)):
            raise ValueError(f"its card's {key} is {str(card.get(key))[:40]!r}; expected {expected}")
    if card["defect_class"] not in card["class_names"]:
        raise ValueError(f"its card's defect_class is none of {card['class_names']}")
    return card


def _no_number(name: str) -> None:
    raise ValueError(f"its card holds {name}")


def _is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max and least <= value <= most  # type: ignore[arg-type, operator]


def _are_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_metrics(value: object) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(v is None or _is_number(v) for v in map(value.get, METRICS))
        and ("intervals" not in value or _are_text([value["intervals"]]))
        and all(_is_interval(value.get(f"{rate}_interval")) for rate in RATES)
    )


def _is_interval(value: object) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)))


def _are_counts(value: object) -> bool:
    """Whether it holds images of each class by subset."""
    subsets = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(subset, dict) and all(map(_is_number, subset.values())) for subset in subsets)


def _is_reference(value: object) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(isinstance(value.get(key), list) and all(map(_is_number, value[key])) for key in REFERENCE)
    )


REFERENCE = ("p_defect", "unfamiliarity")
RATES = ("escape_rate", "overkill_rate")
METRICS = ("accuracy", "auroc", *RATES)
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "class_names": (
        "two names",
        lambda names: isinstance(names, list) and _are_text(names) and len(names) == len(set(names)) == 2,
    ),
    "defect_class": ("a name", lambda value: _are_text([value])),
    "threshold": ("a number from 0 to 1", lambda value: _is_number(value, 0, 1)),
    "defective_from": ("a number from 0 to 1", lambda value: value is None or _is_number(value, 0, 1)),
    "verdicts": (", ".join(VERDICTS), lambda value: value in (None, VERDICTS)),  # missing in models of castnet 0.1
    "reference": (f"{' and '.join(REFERENCE)} as numbers", _is_reference),
    "temperature": ("a number above 0", lambda value: _is_number(value, 0) and value > 0),
    "image_size": ("a whole number above 0", lambda value: type(value) is int and value > 0),
    "evidence_grid": (
        "two numbers",
        lambda grid: isinstance(grid, list) and len(grid) == 2 and all(map(_is_number, grid)) and grid[1] > 0,
    ),
    "data": (
        "source, root and protocol as text, counts as numbers",
        lambda data: (
            isinstance(data, dict)
            and _are_text(map(data.get, ("source", "root", "protocol")))
            and _are_counts(data.get("counts", {}))
        ),
    ),
    "validation": (f"{', '.join(METRICS)} as numbers", _are_metrics),
    "test": (f"{', '.join(METRICS)} as numbers", _are_metrics),
    "finished": ("true or false", lambda value: value in (True, False, None)),  # missing in models of castnet 0.1
    "castnet": ("a version", lambda value: _are_text([value])),
    "exported": ("a time", lambda value: _are_text([value])),
}
