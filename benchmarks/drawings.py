"""AUROC on photographs of networks that saw drawings alone: the weights that ship, and a curve over numbers of pairs.

    python benchmarks/drawings.py data.root=FOLDER
    castnet generate data/pairs --n 112000 --seed 2026 --pairs
    python benchmarks/drawings.py --pairs 1000,10000,100000 --drawn data/pairs --out curve data.root=FOLDER

The first prints what ships, at both sizes. The second learns the first so many pairs of a folder as `make weights` does
at first, five epochs at 64 pixels and three at 128, or more where that would be fewer than 20,000 parts, and adds
OUT.json and OUT.png. All images of the folder are judged, over eight turns and flips. What follows are overrides of
train.py; data.image_size=64 or 128 leaves out the other.
"""

import argparse
import csv
import json
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from ready import composed, made_ready

from castnet import entry
from castnet.build import build_classifier
from castnet.data.datamodule import CastingDataModule
from castnet.drawn.weights import SHIPPED, card
from castnet.errors import UserError
from castnet.model.start import read_weights, take_over
from castnet.report.new_parts import Pooled

sys.path.insert(0, str(Path(__file__).parents[1]))  # where train.py is
from train import train

EPOCHS = {64: 5, 128: 3}
LEAST = 20_000  # parts gone through
QUIET = ["~callbacks.progress_bar", "~callbacks.summary", "~callbacks.pictures", "~callbacks.report", "logger=[]"]


Rows = list[list[str]]


def manifest(drawn: Path) -> tuple[list[str], Rows, Rows]:
    """Its header, and the rows of training and test images, those of a pair beside each other."""
    with (drawn / "manifest.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    training, test = ([row for row in rows if row[0].startswith(subset)] for subset in ("train/", "test/"))
    return header, training, test


def first_pairs(drawn: Path, pairs: int, root: Path) -> None:
    """A folder of links to the first training pairs of another, and to all its test pairs."""
    header, training, test = manifest(drawn)
    # Parts that come first in a folder are no other parts, but a fixed choice that any number of pairs continues.
    kept = [*training[: 2 * pairs], *test]
    for name in ["generator.json", *(row[0] for row in kept)]:
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(drawn.resolve() / name)
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *kept])


def learn(drawn: Path, pairs: int, image_size: int, folder: Path) -> tuple[Path, int]:
    """The checkpoint of a network that learnt so many pairs, and for how many epochs."""
    epochs = max(EPOCHS[image_size], -(-LEAST // pairs))
    first_pairs(drawn, pairs, folder / "pairs")
    made = json.loads((drawn / "generator.json").read_text())
    drawing = [f"data.generate.n={made['n']}", f"data.generate.seed={made['seed']}"]
    own = [f"data.root={folder}/pairs", f"paths.cache_dir={folder}/cache", f"paths.output_dir={folder}/run"]
    size = [f"data.image_size={image_size}", f"data.oversample={128 // image_size}", f"trainer.max_epochs={epochs}"]
    cfg = composed("experiment=weights", *QUIET, *drawing, *own, *size)
    with redirect_stdout(StringIO()):
        train(cfg)
    return folder / "run" / "checkpoints" / "best.ckpt", epochs


def photographs(image_size: int, overrides: list[str]) -> tuple[DictConfig, CastingDataModule]:
    """The settings of a network for images of this size, and all images of the folder."""
    size = [f"data.image_size={image_size}", f"data.oversample={128 // image_size}"]
    cfg = composed("experiment=new_parts", "model.views=8", *overrides, *size)
    with redirect_stdout(StringIO()):
        return cfg.model, made_ready(cfg)


def judged(weights: Path, image_size: int, overrides: list[str]) -> Pooled:
    """What the network with these weights says of all images of the folder."""
    model, data = photographs(image_size, overrides)
    classifier = build_classifier(model, data).eval()
    take_over(classifier, read_weights(weights), dense=True)
    rows = np.arange(len(data.folder.files))
    with torch.inference_mode():
        batches = (
            data.input_of(torch.from_numpy(data.block[part])) for part in np.array_split(rows, len(rows) // 64 + 1)
        )
        logits = torch.cat([classifier(batch) for batch in batches]).numpy().astype(np.float64)
    defect = data.folder.classes.index(data.hparams["defect_class"])
    labels = [data.folder.classes[label] for label in data.folder.labels]
    parts = rows if data.groups is None else data.groups
    margins = logits if defect == 1 else -logits
    return Pooled(data.folder.files, labels, data.folder.labels == defect, parts, margins, data.groups is not None)


def show(name: str, pooled: Pooled) -> dict[str, float]:
    """Print a line of the table and return its figures."""
    images, parts = pooled.numbers(), pooled.by_part.numbers()
    print(
        f"| {name} | {images['auroc']:.4f} | {images['overkill_at_1%_escapes']:.1%} | {parts['auroc']:.4f} |",
        flush=True,
    )
    return {"auroc": images["auroc"], "by_part": parts["auroc"]}


def curve(found: dict[int, dict[int, dict[str, float]]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for size, points in found.items():
        axes.plot(list(points), [point["auroc"] for point in points.values()], "o-", label=f"{size} pixels")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("pairs of drawn castings")
    axes.set_ylabel("AUROC on photographs, none learnt")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", default="", help="numbers of pairs to learn, such as 1000,10000")
    parser.add_argument("--drawn", type=Path, default=Path("data/pairs"), help="what `castnet generate --pairs` made")
    parser.add_argument("--out", type=Path, default=Path("curve"), help="of the curve, without suffix")
    arguments, overrides = parser.parse_known_args()
    named = [word.partition("=")[2] for word in overrides if word.startswith("data.image_size=")]
    asked = [int(word) if word.isdecimal() else 0 for word in arguments.pairs.split(",") if word]
    if arguments.pairs and not arguments.out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: there is no folder {arguments.out.parent}; name one that is there")
    if 0 in asked:
        raise UserError(f"--pairs {arguments.pairs}: expected numbers of 1 or more, such as 1000,10000")
    if asked and not (arguments.drawn / "manifest.csv").is_file():
        raise UserError(f"--drawn {arguments.drawn}: holds no drawn pairs; `castnet generate --pairs` makes them")
    if asked and (pairs := len(manifest(arguments.drawn)[1]) // 2) < max(asked):
        raise UserError(
            f"--pairs {max(asked)}: {arguments.drawn} has {pairs:,} training pairs; draw more, or ask for fewer"
        )
    if others := set(named) - set(map(str, SHIPPED)):
        raise UserError(f"data.image_size={others.pop()}: weights ship for {' and '.join(map(str, SHIPPED))} pixels")
    torch.set_num_threads(1)
    sizes = [int(word) for word in named or SHIPPED]
    for size in sizes:  # a folder that is not as expected is told before hours of learning
        photographs(size, overrides)
    print("| | AUROC | overkill at 1 % escapes | AUROC by photograph |\n| --- | --- | --- | --- |")
    found: dict[int, dict[int, dict[str, float]]] = {}
    for size in sizes:
        for pairs in asked:
            with tempfile.TemporaryDirectory() as folder:
                path, epochs = learn(arguments.drawn, pairs, size, Path(folder))
                name = f"{pairs:,} pairs × {epochs} epochs, {size} px"
                found.setdefault(size, {})[pairs] = show(name, judged(path, size, overrides))
        # Of one seed's drawings the later stages learn what the first did, and more.
        learnt = card(SHIPPED[size])["learnt"]
        pairs = sum({(stage["drawing"], stage["seeds"]["drawing"]): stage["pairs"] for stage in learnt}.values())
        name = f"what ships, {pairs:,} pairs, {size} px"
        shipped = show(name, judged(SHIPPED[size], size, overrides))
        if size in found:
            found[size][pairs] = shipped
    if found:
        arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1))
        curve(found).savefig(arguments.out.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    entry.guard(main)
