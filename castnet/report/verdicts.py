"""What is gained by saying "cannot tell": shares unsure by reason, mistakes among the rest, risk against coverage."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from castnet.model.classifier import VERDICTS

GOOD, DEFECTIVE, DOUBTFUL, UNFAMILIAR = range(len(VERDICTS))


def verdict_rates(verdicts: NDArray[np.int64], defective: NDArray[np.bool_]) -> dict[str, Any]:
    """Shares of images, and counts of verdicts by what is true.

    Args:
        verdicts: indices of `castnet.model.classifier.VERDICTS`, (n,), at least one.
        defective: whether each casting is, (n,).

    Returns:
        `unsure_rate`, of which `unfamiliar_rate` and `doubtful_rate`; `passed_rate`, defective castings called good as
        a share of all defective ones, and `rejected_rate`, good ones called defective as a share of all good ones, None
        where there are none; and `counts`.
    """
    counts = {
        true: dict(zip(VERDICTS, np.bincount(verdicts[chosen], minlength=len(VERDICTS)).tolist(), strict=True))
        for true, chosen in (("good", ~defective), ("defective", defective))
    }
    return {
        "unsure_rate": float((verdicts >= DOUBTFUL).mean()),
        "unfamiliar_rate": float((verdicts == UNFAMILIAR).mean()),
        "doubtful_rate": float((verdicts == DOUBTFUL).mean()),
        "passed_rate": float((verdicts[defective] == GOOD).mean()) if defective.any() else None,
        "rejected_rate": float((verdicts[~defective] == DEFECTIVE).mean()) if not defective.all() else None,
        "counts": counts,
    }


def risk_by_coverage(
    p_defect: NDArray[np.floating],
    unfamiliarity: NDArray[np.floating],
    wrong: NDArray[np.bool_],
    threshold: float,
    defective_from: float | None = None,
) -> NDArray[np.float64]:
    """Share of wrong decisions among the k surest images, for k from 1 to n (Geifman & El-Yaniv, arXiv:1705.08500).

    Unfamiliar images are the least sure, the least familiar first, and then doubtful ones; the others are surer the
    further the odds of a defect are from the threshold's.

    Args:
        p_defect: P(defect), (n,).
        unfamiliarity: (n,), unfamiliar from 1 on.
        wrong: whether a cut at the threshold judges each image wrongly, (n,).
        threshold: a casting is called defective if P(defect) reaches it.
        defective_from: from the threshold up to this P(defect) it is doubtful; None where none is.

    Returns:
        Risk at coverage k / n, (n,).
    """
    p, cut = (np.clip(np.asarray(value, np.float64), 1e-12, 1 - 1e-12) for value in (p_defect, threshold))
    distance = np.abs(np.log(p / (1 - p)) - np.log(cut / (1 - cut)))
    doubtful = (p_defect >= threshold) & (p_defect < (threshold if defective_from is None else defective_from))
    surest_first = np.lexsort((-distance, np.where(unfamiliarity < 1, doubtful / 2, unfamiliarity)))
    return np.cumsum(wrong[surest_first]) / np.arange(1, len(wrong) + 1)
