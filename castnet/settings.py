"""What a setting may be: stated in the type hints of whatever it is handed to, checked by pydantic."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from castnet.errors import UserError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's generators take
SMALLEST_IMAGE = 22  # pixels, below which three convolutions leave nothing to pool
# Above 1024 pixels the dense layer alone takes gigabytes.
ImageSize = Annotated[int, Field(ge=SMALLEST_IMAGE, le=1024)]
Text = Annotated[str, Field(min_length=1)]

# No number stands for a string or a truth value, and an integer is no fraction.
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def require(key: str, value: Any, hint: Any) -> None:
    """Compare a value with a type hint, which may carry bounds: `Annotated[float, Field(gt=0)]`.

    Raises:
        UserError: the value is of another type, out of bounds, or holds a number that is not finite.
    """
    _require_finite(key, value)
    try:
        TypeAdapter(hint, config=STRICT).validate_python(value)
    except ValidationError as error:
        places = [_place(value, problem["loc"]) for problem in error.errors()]
        # A union has one problem for each of its members.
        reasons = [_reason(problem) for problem, at in zip(error.errors(), places, strict=True) if at == places[0]]
        for step in places[0]:
            key, value = f"{key}.{step}", value[step]
        raise UserError(f"{key}={value}: {' or '.join(dict.fromkeys(reasons))}") from error


def check(key: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Compare settings with the parameters of the function they are meant for.

    Args:
        key: where the settings stand, for messages.
        function: what takes them.
        settings: some of its arguments, by name.

    Raises:
        UserError: as `require`; or the function has no parameter of that name.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(function)
    for name, value in settings.items():
        if name not in parameters and not takes_any:
            known = ", ".join(name for name in parameters if name != "self")
            raise UserError(f"{key}.{name}: no such setting; expected one of {known}")
        require(f"{key}.{name}", value, hints.get(name, Any))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # a library's hints may name what is imported for type checkers alone
        return {}


def _require_finite(key: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _require_finite(f"{key}.{name}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            _require_finite(f"{key}.{index}", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: expected a finite number")


def _place(value: Any, location: tuple[int | str, ...]) -> list[int | str]:
    """The part of pydantic's location that leads into the value; the rest names members of unions."""
    place: list[int | str] = []
    for step in location:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            break
        place.append(step)
    return place


def _reason(problem: Mapping[str, Any]) -> str:
    """Pydantic's message in the house's words: "expected …"."""
    message: str = problem["msg"]
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float | None):
        return "expected text, which needs quotes within quotes where it reads like a number: 'KEY=\"1\"'"
    for opening, ours in (("Input should be ", "expected "), ("Value error, ", "")):
        if message.startswith(opening):
            return ours + message.removeprefix(opening)
    return message[:1].lower() + message[1:]
