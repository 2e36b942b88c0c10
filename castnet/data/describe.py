"""A data module in words and numbers: where its images come from, and what is odd about them."""

from pathlib import Path
from typing import Any

import numpy as np

from castnet.data.datamodule import CastingDataModule
from castnet.data.subsets import judged_by_part, on_both_sides
from castnet.imaging.listing import SIDES, class_folders, not_looked_at

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
    unused = (_beside(datamodule), not_looked_at(datamodule.folder.others), _not_corrected(datamodule))
    told = (line, *unused, _empty(datamodule), shared, datamodule.fitted)
    return "\n".join(part for part in told if part)


def _beside(datamodule: CastingDataModule) -> str:
    """A line about folders of images that are not used."""
    is_split = datamodule.folder.is_test is not None
    names = [entry.name for entry in class_folders(Path(datamodule.hparams["root"]))] if is_split else []
    unused = ", ".join(f"{name}/" for name in names if name not in SIDES)
    return unused and f"Not used: {unused} beside train/, of which validation takes its share, and test/."


def _not_corrected(datamodule: CastingDataModule) -> str:
    """A line about corrections that correct nothing, as after a slip of the pen."""
    corrections = datamodule.hparams["corrections"]
    if not corrections or datamodule.test_subset == "all":  # another folder has none of those that were learnt with
        return ""
    folder, named = datamodule.folder, {file: name for name, files in corrections.items() for file in files}
    unknown = sorted(named.keys() - folder.files)
    kept = sum(
        named.get(file, folder.classes[label]) != folder.classes[label]
        for file, label in zip(folder.files, folder.labels, strict=True)
    )
    told = [f"{len(unknown)} of {len(named)} are of no image in this folder, such as {unknown[0]}."] if unknown else []
    told += [f"{kept} of {len(named)} are of test images, which keep the class of their folder."] if kept else []
    return f"data.corrections: {' '.join(told)}" if told else ""


def _empty(datamodule: CastingDataModule) -> str:
    """A line about slices that reports are silent of."""
    rows = datamodule.rows[datamodule.test_subset]
    names = ", ".join(name for name, chosen in datamodule.slices.items() if not chosen[rows].any())
    return names and f"data.slices: of {names} no image is tested, and no report has figures."
