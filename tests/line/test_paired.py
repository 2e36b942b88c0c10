from pathlib import Path

import pytest

from castnet.line.inspector import Verdict
from castnet.line.known import Known
from castnet.line.paired import KINDS, Comparison, Pair


def says(verdict: str, p_defect: float = 0.5) -> Verdict:
    reason = "unfamiliar" if verdict == "unsure" else None
    return Verdict(verdict, reason, verdict, verdict != "good", p_defect, 0.5, 0.0, 1.0)


def pairs(*rows: tuple[bool | None, str, str, str]) -> Comparison:
    """Of images, by what is true, their part and both verdicts."""
    images = [Known(f"{number}.png", Path, is_defect, part) for number, (is_defect, part, *_) in enumerate(rows)]
    return Comparison([Pair(image, says(old), says(new)) for image, (*_, old, new) in zip(images, rows, strict=True)])


def test_mcnemars_exact_test_is_the_one_of_the_book() -> None:
    """Five defects pass the new model alone and one the old one alone: p = 2 (1 + 6) / 2⁶."""
    rows = [(True, str(number), "defective", "good") for number in range(5)]
    rows += [(True, "5", "good", "defective"), (True, "6", "good", "good"), (True, "7", "unsure", "defective")]
    escapes = pairs(*rows, (False, "8", "defective", "good")).escapes
    assert escapes
    assert (escapes.of, escapes.old, escapes.new, escapes.old_alone, escapes.new_alone) == (8, 2, 6, 1, 5)
    assert escapes.p_value == pytest.approx(2 * (1 + 6) / 2**6)


def test_the_copies_of_one_part_count_once() -> None:
    """Five copies of one part and one image of another are one against one, which says nothing."""
    rows = [(True, "same", "defective", "good")] * 5 + [(True, "another", "good", "defective")]
    comparison = pairs(*rows, (True, "same", "good", "unsure"))
    escapes = comparison.escapes
    assert escapes
    assert (escapes.new_alone, escapes.old_alone) == (5, 2)
    assert (escapes.parts_more, escapes.parts_fewer, escapes.p_value) == (1, 1, 1)
    assert comparison.new_escapes == 1


def test_a_part_as_often_wrong_as_before_is_no_evidence_and_yet_a_new_escape() -> None:
    comparison = pairs((True, "same", "defective", "good"), (True, "same", "good", "defective"))
    assert comparison.escapes
    assert (comparison.escapes.parts_more, comparison.escapes.parts_fewer, comparison.escapes.p_value) == (0, 0, 1)
    assert comparison.new_escapes == 1


@pytest.mark.parametrize(
    ("is_defect", "old", "new", "kind"),
    [
        (True, "defective", "good", "new escapes"),
        (True, "unsure", "good", "new escapes"),
        (True, "good", "unsure", "escapes no more"),
        (True, "defective", "unsure", "other changes"),
        (False, "unsure", "defective", "new overkill"),
        (False, "defective", "good", "overkill no more"),
        (False, "unsure", "good", "other changes"),
        (None, "defective", "good", "other changes"),
        (True, "good", "good", None),
    ],
)
def test_a_change_is_named_after_the_mistake_that_comes_or_goes(
    is_defect: bool | None, old: str, new: str, kind: str | None
) -> None:
    changes = pairs((is_defect, "0", old, new)).changes
    assert {name: len(found) for name, found in changes.items()} == {name: int(name == kind) for name in KINDS}


def test_the_largest_changes_come_first() -> None:
    """A page has pictures of the first ones alone."""
    image = Known("0.png", Path, True, "0")
    rows = [Pair(image, says("defective", 0.6), says("good", p_defect)) for p_defect in (0.4, 0.1, 0.3)]
    assert [pair.new.p_defect for pair in Comparison(rows).changes["new escapes"]] == [0.1, 0.3, 0.4]


def test_unsure_is_no_mistake_and_counts_by_itself() -> None:
    comparison = pairs((True, "0", "good", "unsure"), (False, "1", "defective", "unsure"), (None, "2", "good", "good"))
    assert comparison.escapes
    assert comparison.overkill
    assert comparison.unsure
    assert (comparison.escapes.new, comparison.overkill.new) == (0, 0)
    assert (comparison.escapes.of, comparison.overkill.of) == (1, 1), "of the third nobody knows what it is"
    assert (comparison.unsure.of, comparison.unsure.old, comparison.unsure.new) == (3, 0, 2)
    assert pairs((None, "0", "good", "good")).escapes is None
