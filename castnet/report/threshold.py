"""Where to cut: the operating point, chosen on validation images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import brute, minimize
from scipy.special import expit
from torch import Tensor

from castnet.data.datamodule import CastingDataModule
from castnet.errors import UserError
from castnet.model.checkpoint import finish_checkpoint, load_classifier
from castnet.model.classifier import CastingClassifier
from castnet.model.familiarity import Familiarity
from castnet.model.metrics import CastingMetrics
from castnet.settings import Positive, check

# Standard deviations of log(temperature) and of the offset in calibrated logits, before any image is seen. Without the
# first, validation images that are all right would sharpen the probabilities without end, and a defect that looks only
# a little better than those would pass; without the second, a few parts would decide where the cut lies.
PRIOR, OFFSET_PRIOR = 0.5, 1.0
# Share of labels taken to be wrong; in common test sets 3 % are (Northcutt et al., arXiv:2103.14749). Else a few
# images that show no defect, whatever their label, would flatten all probabilities and reject the doubtful good ones.
WRONG_LABELS = 0.01
CLEAR = 1e-3  # of a probability, by which a cut lies below an image at most
SAMPLED = 10_000  # images are enough to know what is familiar by
REFERENCE = 500  # validation images that a line's P(defect) and unfamiliarity are compared with


@dataclass(frozen=True)
class ThresholdRule:
    """How the threshold follows from calibrated probabilities.

    By default it minimises the expected cost: a casting is rejected if letting it pass would cost more than rejecting
    it, P(defect) · escape_cost ≥ P(good) · overkill_cost (the Bayes decision, Duda & Hart 1973). The cut follows from
    the probabilities' calibration, to which every validation image contributes, and not from the single worst one.

    Args:
        escape_cost: of a defect that passes.
        overkill_cost: of a good part rejected, in the same unit.
        max_escape_rate: if given, costs do not matter and as many validation images pass as are expected to hold no
            larger share of all defects; the threshold lies below the next. Not 0: that rejects all.
        review_cost: of a second look, in the same unit. A casting is doubtful where that costs less than either
            letting it pass or rejecting it (Chow, IEEE Trans. Inf. Theory 16, 1970); None doubts none.

    Raises:
        UserError: a cost is not above 0, the rate not between 0 and 1, or a second look never pays.
    """

    escape_cost: Positive
    overkill_cost: Positive
    max_escape_rate: Annotated[float, Field(gt=0, lt=1)] | None
    review_cost: Positive | None = None

    def __post_init__(self) -> None:
        check("threshold", ThresholdRule.__init__, vars(self))
        if self.review_cost is None:
            return
        if self.max_escape_rate is not None:
            raise UserError("threshold.review_cost: costs do not count with threshold.max_escape_rate; set one of them")
        dearest = self.escape_cost * self.overkill_cost / (self.escape_cost + self.overkill_cost)
        if self.review_cost >= dearest:
            raise UserError(
                f"threshold.review_cost={self.review_cost}: expected less than {dearest:.3g}; a dearer "
                "second look never pays"
            )

    def cuts(self, p_defect: NDArray[np.floating]) -> tuple[float, float | None]:
        """Up to where a casting is good and, if any is doubtful, from where it is defective.

        Args:
            p_defect: calibrated P(defect) of the validation images, (n,).
        """
        if self.review_cost is None:
            return self.threshold(p_defect), None
        return self.review_cost / self.escape_cost, 1 - self.review_cost / self.overkill_cost

    def threshold(self, p_defect: NDArray[np.floating]) -> float:
        """The threshold for calibrated P(defect) of the validation images, (n,), if none may be doubtful."""
        if self.max_escape_rate is None:
            return self.overkill_cost / (self.escape_cost + self.overkill_cost)
        ordered = np.sort(p_defect.astype(np.float64))
        escapes = np.cumsum(ordered) / ordered.sum()
        passing = int(np.searchsorted(escapes, self.max_escape_rate, side="right"))
        first = ordered[min(passing, len(ordered) - 1)]
        below = ordered[ordered < first].max(initial=0)
        # Not at an image's own probability, which ONNX Runtime or another batch rounds otherwise: it would pass there.
        return float(max((below + first) / 2, (1 - CLEAR) * first))


def fit_calibration(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The most probable temperature and offset: calibrated logits are (logits + offset) / temperature.

    Temperature scaling (Guo et al., arXiv:1706.04599) with a bias (Alexandari et al., arXiv:1901.06852): a network that
    meets parts it never saw, or whose weights are a mean of two, may lean to one class. The temperature is log-normal
    around 1 and the offset normal around 0 as long as nothing is known. A label tells the class with `WRONG_LABELS`
    exceptions: an image that contradicts its label flatly counts as one of them, and not against the others.

    Args:
        logits: of class 1, float32 (n,).
        labels: class indices, int64 (n,).
    """
    x, signs = logits.double().numpy(), 2.0 * labels.double().numpy() - 1

    def loss(parameters: NDArray[np.float64]) -> float:
        log_temperature, shift = parameters
        of_label = expit(signs * (x / np.exp(log_temperature) + shift))
        surprise = -np.log(WRONG_LABELS + (1 - 2 * WRONG_LABELS) * of_label).sum()
        return float(surprise + (log_temperature / PRIOR) ** 2 / 2 + (shift / OFFSET_PRIOR) ** 2 / 2)

    # Labels that may be wrong make valleys, of which one start would find its own alone.
    bounds = ((-3, 3), (-10, 10))  # of the grid alone: a network that leans far to one class may need more
    log_temperature, shift = minimize(loss, brute(loss, bounds, finish=None), bounds=((-6, 6), (-100, 100))).x
    temperature = float(np.exp(log_temperature))
    return temperature, float(shift) * temperature


def logits_and_labels(
    classifier: CastingClassifier, datamodule: CastingDataModule, subset: str
) -> tuple[Tensor, Tensor]:
    """Logits of class 1, float32 (n,), and class indices, int64 (n,), of the `train`, `val` or `test` images."""
    classifier.eval()
    logits: list[float] = []  # not tensors, of which each would lie between the pixels of all batches
    labels: list[int] = []
    with torch.inference_mode():
        for pixels, of_batch in datamodule.loader(subset):
            logits += classifier(datamodule.input_of(pixels)).tolist()
            labels += of_batch.tolist()
    return torch.tensor(logits), torch.tensor(labels)


def choose_operating_point(ckpt_path: Path, datamodule: CastingDataModule, rule: ThresholdRule | None) -> None:
    """Calibrate a checkpoint on its validation images, choose its cuts, learn what is familiar, and store all in it.

    The checkpoint's validation metrics become those at the operating point, and the offset becomes part of its
    network's last bias.

    Args:
        ckpt_path: checkpoint to calibrate; it is replaced only when the new one is whole.
        datamodule: what it was trained on.
        rule: how the threshold is chosen; None leaves it as it is, without calibration.
    """
    familiarity, rows, unfamiliarity = fit_familiarity(datamodule)
    if rule is None:
        finish_checkpoint(ckpt_path, familiarity=vars(familiarity))
        return
    classifier = load_classifier(ckpt_path)
    if classifier.trained_bias is not None:  # of a run that was killed after this, and went on
        classifier.network.bias.data = classifier.trained_bias
    logits, labels = logits_and_labels(classifier, datamodule, "val")
    temperature, offset = fit_calibration(logits, labels)
    classifier.hparams["temperature"], logits = temperature, logits + offset
    p_defect = classifier.defect_probability(logits)
    threshold, defective_from = rule.cuts(p_defect.numpy())

    counted = CastingMetrics(classifier.hparams["class_names"], classifier.hparams["defect_class"], threshold)
    counted.update(p_defect, labels)
    held_out = unfamiliarity[np.isin(rows, datamodule.rows["val"])]
    reference = {"p_defect": _some(p_defect), "unfamiliarity": _some(held_out)}
    finish_checkpoint(
        ckpt_path,
        {"temperature": temperature, "threshold": threshold, "defective_from": defective_from},
        offset=offset,
        validation=counted.compute(),
        familiarity=vars(familiarity),
        reference=reference,
    )


def _some(values: Tensor) -> list[float]:
    """At most `REFERENCE` of the values, from all over them."""
    chosen: list[float] = values[np.linspace(0, len(values) - 1, min(REFERENCE, len(values))).astype(int)].tolist()
    return chosen


def fit_familiarity(datamodule: CastingDataModule) -> tuple[Familiarity, NDArray[np.int64], Tensor]:
    """What is familiar to who has seen the train and val images, as they are stored; some of them where they are many.

    Training images count without augmentation: that a network stands other light better for it does not make other
    light usual.

    Returns:
        What is familiar; the rows of the images that it was made from, (n,); and their unfamiliarity while each was
        held out, (n,), see `Familiarity.fit`.
    """
    rows = np.concatenate([datamodule.rows["train"], datamodule.rows["val"]])
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLED])
    parts = rows if datamodule.groups is None else datamodule.groups[rows]
    known, unfamiliarity = Familiarity.fit(_stored(datamodule, rows), parts)
    return known, rows, unfamiliarity


def _stored(datamodule: CastingDataModule, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    """The network's input of these images, without augmentation, some at a time."""
    for start in range(0, len(rows), 256):
        yield datamodule.input_of(torch.from_numpy(datamodule.block[rows[start : start + 256]]))
