"""What a folder costs against the number of its images: time and memory of every stage.

    python benchmarks/scale.py SCRATCH --n 10000 100000 1000000 [--stages list split blocks again epoch evaluate audit]

The images are a few hundred drawn castings, linked under as many names as asked for (a name costs no space), at twice
the network's 64 × 64 pixels or what --image-size says: fewer make all but the network weigh more. They are bitmaps, so
that no decoder weighs much. Every stage runs in a process of its own; its memory is the peak of what it holds beside
mapped files (RssAnon of Linux), less what the libraries hold. `blocks` decodes every image, `again` is what a second
run does before its first epoch. Seconds of the CPU tell how cost grows also where other work keeps a machine busy. An
audit of links finds copies of copies, its worst case, and runs only where it is asked for.

SCRATCH, a folder of this benchmark's own, keeps images and blocks for the next call: 17 GB for a million images of 64
pixels.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from castnet import entry
from castnet.drawn.folder import draw
from castnet.settings import ImageSize, require

STAGES = ("list", "split", "blocks", "again", "epoch", "evaluate", "audit")
DRAWN, PER_FOLDER = 400, 10_000
SMALLEST = 20  # both classes in train and test
BATCH = 256  # large, so that the network's own cost hides least of what else an image costs
DEFECT = "def_front"


def link(root: Path, n: int, side: int) -> None:
    """n names for DRAWN castings, four fifths of them in train/, in folders of at most PER_FOLDER."""
    if (root / "complete").exists():
        return
    drawn = []
    for index in range(DRAWN):
        drawn.append(root / "drawn" / f"{index}.bmp")
        drawn[-1].parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(draw((0, index), defective=index % 2 == 0)[0])
        grey.resize((side, side), Image.Resampling.BOX).save(drawn[-1])
    # A file has at most 65,000 names on ext4, so every ten thousand names have files of their own.
    own: dict[int, Path] = {}
    for index in range(n):
        part, name = "test" if index % 10 > 7 else "train", DEFECT if index % 2 == 0 else "ok_front"
        target = root / "images" / part / name / str(index // PER_FOLDER) / f"{index}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        if index % PER_FOLDER < DRAWN:
            shutil.copyfile(drawn[index % DRAWN], target)
            own[index % DRAWN] = target
        else:
            os.link(own[index % DRAWN], target)
    (root / "complete").touch()


def prepare(name: str, root: Path, image_size: int, out: Path) -> Callable[[], Any]:
    """What a stage does, and writes into an empty folder, with all that comes before it done."""
    from lightning import Trainer, seed_everything
    from ready import composed

    from castnet.audit.audit import audit
    from castnet.build import build, build_classifier
    from castnet.data.datamodule import CastingDataModule
    from castnet.data.folder import read_folder
    from castnet.data.subsets import subsets
    from castnet.report.callbacks import TestReport

    images = root / "images"
    source = ["data=folder", f"data.root={images}", f"data.defect_class={DEFECT}"]
    source += [f"data.image_size={image_size}", f"data.batch_size={BATCH}"]
    cfg = composed(*source, f"paths.cache_dir={root / 'cache'}", f"paths.output_dir={out}")
    if name == "list":
        return lambda: read_folder(images, DEFECT)
    if name == "audit":
        return lambda: audit(images, out / "audit", progress=False)
    if name == "blocks":
        shutil.rmtree(root / "cache", ignore_errors=True)
    seed_everything(0)
    datamodule = build("data", cfg.data, CastingDataModule)
    if name == "split":
        folder = read_folder(images, DEFECT)
        return lambda: subsets(folder, None, datamodule.hparams)
    if name in ("blocks", "again"):
        return datamodule.setup
    datamodule.setup()
    classifier = build_classifier(cfg.model, datamodule)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        enable_model_summary=False,
        callbacks=[TestReport(str(out))] if name == "evaluate" else [],
        **quiet,  # type: ignore[arg-type]
    )
    run = trainer.fit if name == "epoch" else trainer.test
    return lambda: run(classifier, datamodule)


def measure(name: str, root: Path, image_size: int) -> None:
    """Run one stage and print its time and peak memory as JSON."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        do = prepare(name, root, image_size, Path(folder))
        with peak() as found:
            start, worked = time.perf_counter(), time.process_time()
            do()
            found |= {"seconds": time.perf_counter() - start, "CPU seconds": time.process_time() - worked}
    print(json.dumps(found))


@contextmanager
def peak() -> Iterator[dict[str, float]]:
    """The most `bytes` that this process holds within the block, more than at its beginning, beside mapped files."""

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

    def watch() -> None:
        while not over.wait(0.02):
            found["bytes"] = max(found["bytes"], held() - before)

    before, over = held(), threading.Event()
    found: dict[str, float] = {"bytes": 0}
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield found
    over.set()
    thread.join()
    found["bytes"] = max(found["bytes"], held() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="SCRATCH")
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES[:-1])
    parser.add_argument("--image-size", type=int, default=64, help="the network's; block and images have twice as much")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args.measure, args.folder, args.image_size)
    if min(args.n) < SMALLEST:
        parser.error(f"--n {min(args.n)}: expected {SMALLEST} or more")
    require("--image-size", args.image_size, ImageSize)
    if args.folder.exists() and not args.folder.is_dir():
        parser.error(f"{args.folder}: is no folder; name a new one")
    others = [path.name for path in args.folder.glob("*") if not re.fullmatch(r"\d+-\d+|scale\.png", path.name)]
    if others:
        parser.error(f"{args.folder}: holds {others[0]}, which is not this benchmark's; name a new folder")
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in args.stages}
    for n in args.n:
        root = args.folder / f"{n}-{args.image_size}"
        link(root, n, 2 * args.image_size)
        for name in args.stages:
            command = [sys.executable, __file__, str(root), "--measure", name, "--image-size", str(args.image_size)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if ran.returncode:  # of which it told the reason
                sys.exit(ran.returncode)
            measured[name].append(json.loads(ran.stdout.splitlines()[-1]))
            print(f"{n:,} {name}: {measured[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    Console(width=160).print(_table(args.n, measured))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, key in zip(figure.subplots(1, 2), ("CPU seconds", "bytes"), strict=True):
        for name, found in measured.items():
            axis.loglog(args.n, [max(stage[key], 1e-3) for stage in found], marker=".", label=name)
        axis.set(xlabel="images", ylabel=key)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g}")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(args.folder / "scale.png", dpi=120)


def _table(sizes: list[int], measured: dict[str, list[dict[str, float]]]) -> Table:
    table = Table(
        title="seconds (those of the CPU), CPU µs an image, bytes an image beside mapped files", title_justify="left"
    )
    table.add_column("images", justify="right")
    for name in measured:
        table.add_column(name, justify="right")
    for row, n in enumerate(sizes):
        cells = [found[row] for found in measured.values()]
        table.add_row(
            f"{n:,}",
            *(
                f"{cell['seconds']:.1f} ({cell['CPU seconds']:.1f}), "
                f"{1e6 * cell['CPU seconds'] / n:.0f} µs, {cell['bytes'] / n:,.0f} B"
                for cell in cells
            ),
        )
    return table


if __name__ == "__main__":
    entry.guard(main)
