"""How far the pixels alone go: a logistic regression on what the network sees, for comparison with the network.

python benchmarks/pixels.py
python benchmarks/pixels.py data=casting data.root=FOLDER
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from ready import composed, made_ready
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from castnet import entry
from castnet.data.datamodule import CastingDataModule
from castnet.data.describe import describe


def pixels(datamodule: CastingDataModule, subset: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Network inputs, flattened (n, side * side), and labels (n,)."""
    rows = datamodule.rows[subset]
    inputs = datamodule.input_of(torch.from_numpy(datamodule.block[rows]))
    return inputs.flatten(1).numpy(), datamodule.folder.labels[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, overrides = parser.parse_known_args()
    datamodule = made_ready(composed(*overrides))
    print(describe(datamodule))
    regression = LogisticRegressionCV(
        Cs=(1e-5, 1e-4, 1e-3), scoring="accuracy", l1_ratios=(0,), cv=3, max_iter=200, use_legacy_attributes=False
    )
    model = make_pipeline(StandardScaler(), regression).fit(*pixels(datamodule, "train"))
    for subset in ("val", "test"):
        print(f"logistic regression, {subset} accuracy {model.score(*pixels(datamodule, subset)):.4f}")


if __name__ == "__main__":
    entry.guard(main)
