"""A data module in words and numbers: where its images come from, and what is odd about them."""

from pathlib import Path
from typing import Any

import numpy as np

from castnet.data.datamodule import CastingDataModule
from castnet.data.subsets import judged_by_part, on_both_sides
from castnet.imaging.listing import SIDES, class_folders

ORIGIN = ("source", "root", "protocol", "assignment", "groups", "split", "fold", "shots", "seed")


def summary(datamodule: CastingDataModule) -> dict[str, Any]:
    """Where the images come from and how many of each class each subset has, for reports."""
    folder = datamodule.folder
    counts = {
        subset: dict(zip(folder.classes, np.bincount(folder.labels[rows], minlength=2).tolist(), strict=True))
        for subset, rows in datamodule.rows.items()
    }
    origin = {key: datamodule.hparams[key] for key in ORIGIN}
    return origin | {"counts": counts, "corrected": datamodule.n_corrected, "subset": datamodule.test_subset}


def describe(datamodule: CastingDataModule) -> str:
    """A few lines for people: which data this is, how many images each subset has, and what they should know of it."""
    found = summary(datamodule)
    sizes = ", ".join(f"{sum(counts.values()):,} {subset}" for subset, counts in found["counts"].items())
    corrected = f", {found['corrected']} of them under a corrected label" if found["corrected"] else ""
    line = f"data={found['source']} in {found['root']}: {sizes}{corrected}. {found['protocol']}"
    apart = found["subset"] == "all" or judged_by_part(datamodule.hparams)
    shared = "" if apart else on_both_sides(datamodule.groups, datamodule.rows)
    told = (line, _beside(datamodule), _not_corrected(datamodule), _empty(datamodule), shared, datamodule.fitted)
    return "\n".join(part for part in told if part)


def _beside(datamodule: CastingDataModule) -> str:
    """A line about folders of images that are not used."""
    is_split = datamodule.folder.is_test is not None
    names = [entry.name for entry in class_folders(Path(datamodule.hparams["root"]))] if is_split else []
    unused = ", ".join(f"{name}/" for name in names if name not in SIDES)
    return unused and f"Not used: {unused} beside train/, of which validation takes its share, and test/."


def _not_corrected(datamodule: CastingDataModule) -> str:
    """A line about corrected labels that no image has, as after a slip of the pen."""
    corrections = datamodule.hparams["corrections"]
    if not corrections or datamodule.test_subset == "all":  # another folder has none of those that were learnt with
        return ""
    named = {file for files in corrections.values() for file in files}
    unknown = sorted(named.difference(datamodule.folder.files))
    told = f"data.corrections: {len(unknown)} of {len(named)} are of no image in this folder, such as "
    return told + f"{unknown[0]}." if unknown else ""


def _empty(datamodule: CastingDataModule) -> str:
    """A line about slices that reports are silent of."""
    rows = datamodule.rows[datamodule.test_subset]
    names = ", ".join(name for name, chosen in datamodule.slices.items() if not chosen[rows].any())
    return names and f"data.slices: of {names} no image is tested, and no report has figures."
