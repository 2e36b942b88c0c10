from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from castnet.errors import UserError
from castnet.settings import Count, ImageSize, Positive, Rate, Seed, Share, Text, check, require

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (NAN, float, "key=nan: expected a finite number"),
        (INFINITY, Positive, "key=inf: expected a finite number"),
        (-INFINITY, Any, "key=-inf: expected a finite number"),
        ([0.9, NAN], Any, "key.1=nan: expected a finite number"),
        ({"a": {"b": NAN}}, dict[str, Any], "key.a.b=nan: expected a finite number"),
        ("fast", float, "key=fast: expected a valid number"),
        (True, float, "key=True: expected a valid number"),
        (2.5, int, "key=2.5: expected a valid integer"),
        ("1", int, "key=1: expected a valid integer"),
        (1, str, "key=1: expected text, which needs quotes within quotes where it reads like a number: 'KEY=\"1\"'"),
        (None, int, "key=None: expected a valid integer"),
        (0, Count, "key=0: expected greater than or equal to 1"),
        (2**32, Seed, "key=4294967296: expected less than 4294967296"),
        ("c", Literal["a", "b"], "key=c: expected 'a' or 'b'"),
        ("x", list[int] | int, "key=x: expected a valid list or expected a valid integer"),
        ({"a": [1, "x"]}, dict[str, list[int]], "key.a.1=x: expected a valid integer"),
        (21, ImageSize, "key=21: expected greater than or equal to 22"),
        (1025, ImageSize, "key=1025: expected less than or equal to 1024"),
        (0.0, Share, "key=0.0: expected greater than 0"),
        (1.0, Share, "key=1.0: expected less than 1"),
        (1.5, Rate, "key=1.5: expected less than or equal to 1"),
        ("", Text, "key=: string should have at least 1 character"),
    ],
)
def test_a_value_of_another_type_or_range_is_named_with_what_was_expected(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        require("key", value, hint)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "hint"),
    [(1, float), (1e-3, Positive), (None, Annotated[float, Field(gt=0)] | None), ([], list[int]), ("", str)],
)
def test_a_fitting_value_is_accepted(value: Any, hint: Any) -> None:
    require("key", value, hint)


def test_an_unknown_setting_is_named_beside_those_there_are() -> None:
    class Takes:
        def __init__(self, lr: float, epochs: int) -> None: ...

    check("model", Takes.__init__, {"lr": 1e-3})
    with pytest.raises(UserError, match=r"^model\.rate: no such setting; expected one of lr, epochs$"):
        check("model", Takes.__init__, {"rate": 1e-3})


def test_what_takes_any_setting_is_given_it_and_its_own_are_compared_all_the_same() -> None:
    def takes(lr: float, **others: float) -> None: ...

    check("model", takes, {"lr": 1e-3, "rate": "any"})
    with pytest.raises(UserError, match=r"^model\.lr=fast: expected a valid number$"):
        check("model", takes, {"lr": "fast", "rate": "any"})
