"""How many photographs of a new day it takes: AUROC on all other parts, from a random and from a drawn start.

    python benchmarks/few_parts.py data.root=FOLDER
    python benchmarks/few_parts.py --draws 2 --handfuls 1,4 4,4 --out few data.root=FOLDER

learns `experiment=few` for every handful (good, defective), start and draw of parts, prints mean and worst over the
draws, and writes OUT.json and OUT.png. What follows are overrides of train.py. "none" is the start itself: a learning
rate that changes nothing.
"""

import argparse
import io
import json
import re
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ready import composed
from rich.console import Console
from rich.progress import track
from rich.table import Table

from castnet import entry
from castnet.files import replacing
from castnet.report.figures import BAD, GOOD
from castnet.settings import Count, require

sys.path.insert(0, str(Path(__file__).parents[1]))  # where train.py is
from train import train

# What is learnt is averaged with a start that knows something.
STARTS = {"random": ["model.start=null", "~callbacks.weight_averaging"], "drawn": []}
QUIET = ["+trainer.enable_progress_bar=false", "trainer.enable_model_summary=false", "~callbacks.pictures", "logger=[]"]
NONE = ["data.shots=[1,1]", "model.lr=1e-12", "data.epoch_images=null"]
Found = dict[str, dict[str, list[float]]]


def auroc(handful: str, start: str, draw: int, overrides: list[str]) -> float:
    """AUROC on the parts not learnt, after one draw of a handful such as "4,4", or none."""
    asked = NONE if handful == "none" else [f"data.shots=[{handful}]"]
    with tempfile.TemporaryDirectory() as folder:
        own = ["experiment=few", *STARTS[start], f"seed={draw}", f"paths.output_dir={folder}"]
        with redirect_stdout(io.StringIO()):
            train(composed(*own, *QUIET, *asked, *overrides))
        measured: float = json.loads((Path(folder) / "metrics.json").read_text())["auroc"]
    return measured


def draw_curves(found: Found) -> Figure:
    """AUROC against the handful: the mean over the draws as a line, from worst to best as a band."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    for (start, handfuls), colour in zip(found.items(), (BAD, GOOD), strict=True):
        values = np.array(list(handfuls.values()))
        names = [name.replace(",", " + ") for name in handfuls]
        axis.plot(names, values.mean(1), marker="o", color=colour, label=f"{start} start")
        axis.fill_between(names, values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="good + defective parts learnt", ylabel="AUROC on all other parts")
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--handfuls", nargs="+", default=["1,1", "1,4", "4,4", "8,8"], metavar="GOOD,DEFECTIVE")
    parser.add_argument("--out", type=Path, default=Path("few_parts"))
    args, overrides = parser.parse_known_args()
    require("--draws", args.draws, Count)
    handfuls = ["none", *(word for word in args.handfuls if "=" not in word)]
    overrides += [word for word in args.handfuls if "=" in word]
    if wrong := [word for word in handfuls[1:] if not re.fullmatch(r"[1-9]\d*,[1-9]\d*", word)]:
        parser.error(f"--handfuls {wrong[0]}: expected good and defective parts, such as 1,4")
    found: Found = {start: {handful: [] for handful in handfuls} for start in STARTS}
    work = [(start, handful, draw) for draw in range(args.draws) for start in STARTS for handful in handfuls]
    with (
        replacing(args.out.with_suffix(".json")) as numbers,  # where they cannot be written, that is told beforehand
        replacing(args.out.with_suffix(".png")) as picture,
    ):
        for start, handful, draw in track(work, "Learning handfuls", console=Console(stderr=True), transient=True):
            found[start][handful].append(auroc(handful, start, draw, overrides))
        table = Table(title=f"AUROC on all other parts, {args.draws} draws: mean (worst)", title_justify="left")
        for column in ("good, defective parts learnt", *(f"{start} start" for start in STARTS)):
            table.add_column(column)
        for handful in handfuls:
            values = [found[start][handful] for start in STARTS]
            table.add_row(handful, *(f"{np.mean(of):.4f} ({min(of):.4f})" for of in values))
        Console().print(table)
        numbers.write_text(json.dumps(found, indent=2) + "\n")
        draw_curves(found).savefig(picture, format="png", dpi=120)


if __name__ == "__main__":
    entry.guard(main)
