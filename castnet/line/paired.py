"""Two models' verdicts on the same images, counted against each other."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from scipy.stats import binomtest

from castnet.line.inspector import Verdict
from castnet.line.known import Known

# How a verdict changes, the dearest first.
NEW_ESCAPES, NO_MORE_ESCAPES, NEW_OVERKILL, NO_MORE_OVERKILL, OTHERS = KINDS = (
    "new escapes",
    "escapes no more",
    "new overkill",
    "overkill no more",
    "other changes",
)


@dataclass(frozen=True)
class Pair:
    """What two models say of one image."""

    image: Known
    old: Verdict
    new: Verdict

    @property
    def kind(self) -> str | None:
        """Which of `KINDS` the change is; None where the verdict is the same."""
        old, new, is_defect = self.old.verdict, self.new.verdict, self.image.is_defect
        if old == new:
            return None
        mistake = {True: "good", False: "defective", None: None}[is_defect]
        if new == mistake:
            return NEW_ESCAPES if is_defect else NEW_OVERKILL
        if old == mistake:
            return NO_MORE_ESCAPES if is_defect else NO_MORE_OVERKILL
        return OTHERS


@dataclass(frozen=True)
class Contrast:
    """How often two models do one thing to the same images.

    Attributes:
        of: images that it can be done to.
        old, new: images to which each model does it.
        old_alone, new_alone: images to which only one of them does.
        parts_fewer, parts_more: parts to fewer, and to more, of whose images the new model does it.
        p_value: of the exact test whether the two are equally likely, two-sided. Copies of one part say the same thing
            again, so each part counts once: a sign test (Dixon & Mood, J. Am. Stat. Assoc. 41, 1946, p. 557), which is
            McNemar's exact test (Psychometrika 12, 1947, p. 153) where every part has one image.
    """

    of: int
    old: int
    new: int
    old_alone: int
    new_alone: int
    parts_fewer: int
    parts_more: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Both models' verdicts on all images that both could judge."""

    pairs: Sequence[Pair]

    @property
    def escapes(self) -> Contrast | None:
        """Defective castings called good; None where none is known to be defective."""
        return self._contrast([pair for pair in self.pairs if pair.image.is_defect], lambda verdict: verdict == "good")

    @property
    def overkill(self) -> Contrast | None:
        """Good castings called defective; None where none is known to be good."""
        good = [pair for pair in self.pairs if pair.image.is_defect is False]
        return self._contrast(good, lambda verdict: verdict == "defective")

    @property
    def unsure(self) -> Contrast | None:
        """Castings that a model is unsure of, whatever they are."""
        return self._contrast(self.pairs, lambda verdict: verdict == "unsure")

    @property
    def new_escapes(self) -> int:
        """Parts of which the new model lets an image of a defect pass that the old one did not."""
        return len({pair.image.part for pair in self.changes[NEW_ESCAPES]})

    @cached_property
    def changes(self) -> dict[str, list[Pair]]:
        """Pairs of different verdicts by `KINDS`, the largest difference of P(defect) first."""
        found: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
        for pair in sorted(self.pairs, key=lambda pair: -abs(pair.new.p_defect - pair.old.p_defect)):
            if pair.kind:
                found[pair.kind].append(pair)
        return found

    @staticmethod
    def _contrast(pairs: Sequence[Pair], happens: Callable[[str], bool]) -> Contrast | None:
        if not pairs:
            return None
        done = [(happens(pair.old.verdict), happens(pair.new.verdict)) for pair in pairs]
        more: dict[str, int] = defaultdict(int)
        for pair, (old, new) in zip(pairs, done, strict=True):
            more[pair.image.part] += new - old
        fewer, grown = sum(count < 0 for count in more.values()), sum(count > 0 for count in more.values())
        return Contrast(
            of=len(pairs),
            old=sum(old for old, _ in done),
            new=sum(new for _, new in done),
            old_alone=sum(old and not new for old, new in done),
            new_alone=sum(new and not old for old, new in done),
            parts_fewer=fewer,
            parts_more=grown,
            p_value=float(binomtest(grown, fewer + grown).pvalue) if fewer + grown else 1.0,
        )
