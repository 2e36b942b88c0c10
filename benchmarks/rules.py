"""What different rules for the threshold cost on the test images, for the checkpoints of several seeds.

    python benchmarks/rules.py SWEEP/*/checkpoints/best.ckpt

Every rule sees the calibrated probabilities of the validation images alone. Printed are the defective castings that
pass and the good ones rejected.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from castnet import entry
from castnet.data.datamodule import CastingDataModule
from castnet.model.checkpoint import load_classifier
from castnet.report.threshold import ThresholdRule, logits_and_labels

Probabilities = NDArray[np.float64]
Defective = NDArray[np.bool_]
RULES: dict[str, Callable[[Probabilities, Defective], float]] = {
    "0.5": lambda p, _: 0.5,
    "the worst validation defect is caught": lambda p, defective: float(p[defective].min()),
    "no more than 1 defect in 1,000 expected to pass": lambda p, _: ThresholdRule(1, 1, 0.001).threshold(p),
    "an escape costs 10 good parts": lambda p, _: ThresholdRule(10, 1, None).threshold(p),
    "an escape costs 50 good parts": lambda p, _: ThresholdRule(50, 1, None).threshold(p),
}


def judged(ckpt_path: Path) -> dict[str, tuple[Probabilities, Defective]]:
    """Calibrated P(defect) and whether a casting is defective, by subset."""
    classifier = load_classifier(ckpt_path)  # first, since it says clearly what is no checkpoint
    datamodule = CastingDataModule.load_from_checkpoint(ckpt_path, weights_only=True, _instantiator=None)
    datamodule.setup()
    defect = datamodule.folder.classes.index(datamodule.hparams["defect_class"])
    found = {}
    for subset in ("val", "test"):
        logits, labels = logits_and_labels(classifier, datamodule, subset)
        found[subset] = classifier.defect_probability(logits.double()).numpy(), labels.numpy() == defect
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    checkpoints = [judged(path) for path in parser.parse_args().checkpoints]
    table = Table("rule: defects that pass / good castings rejected", *(f"run {i}" for i in range(len(checkpoints))))
    for name, rule in RULES.items():
        cells = []
        for found in checkpoints:
            threshold = rule(*found["val"])
            p_defect, defective = found["test"]
            rejected = p_defect >= threshold
            cells.append(f"{np.sum(defective & ~rejected)} / {np.sum(~defective & rejected)}")
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    entry.guard(main)
