"""What people decide of castings that the model has judged, and what that says of its mistakes."""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import sqlalchemy as sa
from scipy.stats import hypergeom

from castnet.line.record import images, insert_new, reviews, verdicts
from castnet.line.today import Row, count, given

STRATA = {"unsure": "unsure", "rejected": "defective", "passed": "good"}  # by name, the verdict
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Stratum:
    """The castings of one verdict.

    Attributes:
        verdicts: how many there are.
        decided: how many of them a person has decided on.
        reviewed: how many of these are a random sample of all verdicts, see `count_strata`.
        defective: how many of the sample are defective.
    """

    verdicts: int
    decided: int
    reviewed: int
    defective: int


@dataclass(frozen=True)
class Estimate:
    """A rate, None where the reviewed castings tell none, and its interval."""

    rate: float | None
    low: float
    high: float


def next_to_review(
    connection: sa.Connection, stratum: str, since: float, until: float, skipped: Sequence[str] = ()
) -> Row | None:
    """The casting of a stratum to decide on next, with its image's `content`; None if none is left whose image is kept.

    They come in the order of their numbers, which are random, and newcomers with a lower number come first.
    """
    query = (
        sa.select(verdicts, images.c.content)
        .join(images, images.c.image == verdicts.c.image)
        .outerjoin(reviews, reviews.c.verdict_id == verdicts.c.id)
        .where(given(since, until), verdicts.c.verdict == STRATA[stratum])
        .where(reviews.c.verdict_id.is_(None), verdicts.c.id.not_in(skipped))
        .order_by(verdicts.c.id)
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def decide(connection: sa.Connection, verdict_id: str, stratum: str, is_defect: bool) -> bool:
    """Put a decision on record; returns whether it stands there, and not another that somebody made before."""
    row = {"verdict_id": verdict_id, "drawn_as": stratum, "is_defect": is_defect, "time": time.time()}
    insert_new(connection, reviews, [row])
    standing = sa.select(reviews.c.time).where(reviews.c.verdict_id == verdict_id)
    return connection.execute(standing).scalar_one() == row["time"]


def undo(connection: sa.Connection, verdict_id: str) -> None:
    """Take a decision back."""
    connection.execute(reviews.delete().where(reviews.c.verdict_id == verdict_id))


def count_strata(connection: sa.Connection, since: float, until: float) -> dict[str, Stratum]:
    """The strata of a time, by name.

    Castings are decided on in the order of their random numbers, so those decided on are a random sample of the
    verdicts that were there by then. Of all verdicts they are one up to the first newcomer among their numbers: one
    that nobody has decided on, and that came after a casting with a higher number was decided on.
    """
    good, defective, *unsure = count(connection, since, until).tolist()
    total = {"unsure": sum(unsure), "rejected": defective, "passed": good}
    strata = {}
    for name in STRATA:
        decided = (
            sa.select(reviews.c.verdict_id, reviews.c.is_defect, reviews.c.time)
            .join(verdicts, verdicts.c.id == reviews.c.verdict_id)
            # From the few reviews to their verdicts: a join would pass over all verdicts.
            .where(verdicts.c.id.in_(sa.select(reviews.c.verdict_id)), given(since, until), reviews.c.drawn_as == name)
        )
        found = connection.execute(decided).all()
        newcomer = _newcomer(connection, name, since, until, {row.verdict_id: row.time for row in found})
        sample = [row.is_defect for row in found if newcomer is None or row.verdict_id < newcomer]
        strata[name] = Stratum(total[name], len(found), len(sample), sum(sample))
    return strata


def _newcomer(
    connection: sa.Connection, stratum: str, since: float, until: float, decided: Mapping[str, float]
) -> str | None:
    """The lowest number of a casting of a stratum that came after one with a higher number was decided on."""
    if not decided:
        return None
    numbers = sorted(decided)
    # When the first decision was made on each number or a higher one; a database would pass over all of them for every
    # casting.
    first = list(accumulate((decided[number] for number in reversed(numbers)), min))[::-1]
    # A verdict may have waited in a spool while others were decided on.
    later = sa.or_(verdicts.c.time > first[0], images.c.time > first[0])
    query = (
        sa.select(verdicts.c.id, verdicts.c.time, images.c.time.label("kept"))
        .join(images, images.c.image == verdicts.c.image)
        .outerjoin(reviews, reviews.c.verdict_id == verdicts.c.id)
        .where(given(since, until), verdicts.c.verdict == STRATA[stratum], reviews.c.verdict_id.is_(None))
        .where(verdicts.c.id < numbers[-1], later)
        .order_by(verdicts.c.id)
        .execution_options(yield_per=1000)  # most often the first ones tell
    )
    with connection.execute(query) as found:
        for row in found:
            if first[bisect_right(numbers, row.id)] < max(row.time, row.kept):
                return str(row.id)
    return None


def estimate(strata: Mapping[str, Stratum]) -> tuple[Estimate, Estimate]:
    """Escape and overkill rate of all castings, from those that were reviewed, each stratum weighted by its size.

    A stratum of N castings of which n were drawn, d of them defective, has N · d / n defective ones (Cochran, Sampling
    Techniques, 3rd ed. 1977, ch. 5), and a rate is the ratio of two such totals. The escape rate is the share of the
    defective castings that passed; the overkill rate is the share of the good ones that were rejected. A casting that
    the model was unsure of is neither, but counts among the defective or the good ones.

    The interval is never too narrow, also where no escape was found: each stratum's defective castings are at least
    and at most what the hypergeometric distribution allows (ibid., ch. 3), the error of 5 % shared among the strata
    that were not reviewed whole, and the rate's ends are taken where these limits put them (Bonferroni).

    Args:
        strata: `unsure`, `rejected` and `passed`.

    Returns:
        Escape rate and overkill rate.
    """
    sampled = sum(stratum.reviewed < stratum.verdicts for stratum in strata.values())
    tail = (1 - CONFIDENCE) / 2 / max(sampled, 1)
    known = all(stratum.reviewed or not stratum.verdicts for stratum in strata.values())
    sizes = {name: stratum.verdicts for name, stratum in strata.items()}
    likely = {name: s.verdicts * s.defective / max(s.reviewed, 1) for name, s in strata.items()}
    least, most = {}, {}
    for name, stratum in strata.items():
        least[name], most[name] = limits(stratum, tail)
    good = {name: sizes[name] - likely[name] for name in strata}
    good_least = {name: sizes[name] - most[name] for name in strata}
    good_most = {name: sizes[name] - least[name] for name in strata}
    return (
        _share("passed", likely, least, most, known),
        _share("rejected", good, good_least, good_most, known),
    )


def _share(
    name: str, likely: Mapping[str, float], least: Mapping[str, int], most: Mapping[str, int], known: bool
) -> Estimate:
    """The share of one stratum in the total of all, between its least beside the others' most and the reverse."""

    def share(own: float, others: Mapping[str, float] | Mapping[str, int], nothing: float | None) -> float | None:
        total = own + sum(count for other, count in others.items() if other != name)
        return own / total if total else nothing

    return Estimate(
        share(likely[name], likely, None) if known else None,
        share(least[name], most, 0.0) or 0.0,
        share(most[name], least, 1.0) or 0.0,
    )


def limits(stratum: Stratum, tail: float) -> tuple[int, int]:
    """The least and the most defective castings that a stratum may hold, each missed with chance `tail` at most."""
    size, drawn, defective = stratum.verdicts, stratum.reviewed, stratum.defective
    if not drawn:
        return 0, size
    possible = range(defective, size - drawn + defective + 1)
    least = bisect_left(possible, True, key=lambda held: bool(hypergeom.sf(defective - 1, size, held, drawn) > tail))
    beyond = bisect_left(possible, True, key=lambda held: bool(hypergeom.cdf(defective, size, held, drawn) <= tail))
    return possible[least], possible[max(beyond - 1, least)]
