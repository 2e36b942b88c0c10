"""Which images train, validate and test, as a data module's settings have it."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from castnet.data.folder import Folder
from castnet.data.groups import read_subsets
from castnet.data.split import Indices, a_handful, by_part, first_of_class, folds_of, grouped, stratified
from castnet.errors import UserError

SPLITS = Literal["stratified", "first_of_class", "grouped", "new_parts"]
# What figures mean where parts are dealt anew, whatever the set says of its own split.
NEW_PARTS = (
    "New parts: all images, whatever their folder, are dealt to folds by part. A fold is tested by a network that saw "
    "none of its parts; epoch and threshold were chosen on further parts."
)
CORRECTED = " Corrected labels count in tests too, since a part has one label."
HANDFUL = (
    "A handful of parts was learnt and all others are judged. The threshold was set on the parts that were learnt, for "
    "lack of others: trust the ranking (AUROC), and check the rates on parts of your own before relying on them."
)

UNKNOWN = (
    " Parts are not known (data.groups): every image is taken for one, so that copies of what was learnt may be among "
    "those that are judged."
)


def judged_by_part(settings: Mapping[str, Any]) -> bool:
    """Whether parts and not the folder decide what is tested: a part then has one label, wherever its images lie."""
    return settings["split"] == "new_parts" or settings["shots"] is not None


def draws_test(settings: Mapping[str, Any]) -> bool:
    """Whether every run draws its own test images, so that those of one may have been learnt by another."""
    is_settled = settings["source"] != "folder" or settings["assignment"] or (Path(settings["root"]) / "test").is_dir()
    return judged_by_part(settings) or not is_settled


def meaning(settings: Mapping[str, Any]) -> str:
    """What the figures of data with these settings mean, in a sentence or two."""
    if not judged_by_part(settings):
        dealt = ""
    elif settings["shots"] is not None:
        dealt = HANDFUL
    else:
        dealt = NEW_PARTS + CORRECTED * bool(settings["corrections"])
    if dealt and settings["groups"] is None:
        dealt += UNKNOWN
    protocol: str = settings["protocol"]
    return protocol if protocol.startswith(dealt) else dealt  # of a run that is over it may say more


def check_subsets(settings: Mapping[str, Any]) -> None:
    """Refuse settings that contradict each other, before anything is read.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    split, shots = settings["split"], settings["shots"]
    if split == "grouped" and settings["groups"] is None:
        raise UserError("data.split=grouped: needs data.groups, the groups.csv that `castnet audit` writes")
    if settings["whole_parts"] and settings["groups"] is None:
        raise UserError("data.whole_parts=true: needs data.groups, the groups.csv that `castnet audit` writes")
    if settings["whole_parts"] and settings["epoch_images"] is not None:
        raise UserError(
            "data.epoch_images: does not count where data.whole_parts=true; set one of them to null or false"
        )
    if shots is not None and split == "new_parts":
        raise UserError(f"data.shots={shots}: decides what is tested, and so does data.split=new_parts; drop one")
    if shots is not None and (settings["fold"] or split == "grouped"):
        raise UserError(f"data.shots={shots}: draws parts by data.seed, and knows no data.split=grouped or data.fold")
    if split == "grouped" and settings["assignment"] is not None:
        raise UserError(
            f"data.assignment={settings['assignment']}: decides every subset, and so does data.split=grouped; drop one"
        )
    if settings["fold"] and split not in ("grouped", "new_parts"):
        raise UserError(f"data.fold={settings['fold']}: data.split={split} has no folds; expected data.split=grouped")
    for share in ("val_fraction", "test_fraction") if split in ("grouped", "new_parts") else ():
        if folds_of(settings[share]) < 2:
            raise UserError(
                f"data.{share}={settings[share]}: data.split={split} holds out one of as many folds as the share goes "
                "into the whole; expected at most 0.6, which makes two"
            )
    share = "test_fraction" if split == "new_parts" else "val_fraction"
    if settings["fold"] >= (folds := folds_of(settings[share])):
        raise UserError(
            f"data.fold={settings['fold']}: data.{share}={settings[share]} makes {folds} folds, 0 to {folds - 1}"
        )
    if judged_by_part(settings) and settings["assignment"] is not None:
        asked = "data.split=new_parts" if shots is None else f"data.shots={shots}"
        raise UserError(
            f"data.assignment={settings['assignment']}: decides every subset, and so does {asked}; drop one"
        )


def subsets(folder: Folder, groups: Indices | None, settings: Mapping[str, Any]) -> dict[str, Indices]:
    """Rows of the folder's train, val and test images.

    Args:
        folder: the images.
        groups: part of each image, int64 (n,); None takes every image for a part of its own.
        settings: `assignment`, `defect_class`, `split`, `fold`, `shots`, `val_fraction`, `test_fraction` and `seed` of
            a `CastingDataModule`.

    Raises:
        UserError: a share cannot be held out, or there are fewer parts than folds or shots, or a part is in both
            classes.
    """
    if settings["assignment"] is not None:
        return read_subsets(Path(settings["assignment"]), folder.files)
    everything = np.arange(len(folder.files))
    if judged_by_part(settings):
        parts = everything if groups is None else groups
        _require_one_class(folder, parts, settings["groups"])
        if settings["shots"] is not None:
            return _shots(folder, parts, settings)
        _require_parts(folder, parts, settings)
        return _three_ways(folder, parts, everything, settings, settings["fold"], 0)
    if folder.is_test is None:
        return _three_ways(folder, groups, everything, settings, 0, settings["fold"])
    fitted, test = np.flatnonzero(~folder.is_test), np.flatnonzero(folder.is_test)
    train, val = _hold_out(folder, groups, fitted, settings, "val_fraction", settings["fold"])
    return {"train": train, "val": val, "test": test}


def seen_in_training(groups: Indices, rows: Mapping[str, Indices], subset: str) -> NDArray[np.bool_]:
    """Whether each image of `test` shows a part that train or val has too, or each of `val` one of train, bool (n,)."""
    learnt = [groups[rows[name]] for name in ("train", "val") if name != subset]
    return np.isin(groups[rows[subset]], np.concatenate(learnt))


def on_both_sides(groups: Indices | None, rows: Mapping[str, Indices]) -> str:
    """A line for people about parts that are learnt and judged as well; empty where there are none.

    Args:
        groups: part of each image, int64 (n,), if that is known.
        rows: those of each subset.
    """
    if groups is None:
        return ""
    known = {name: seen_in_training(groups, rows, subset) for subset, name in (("test", "test"), ("val", "validation"))}
    told = " and ".join(f"{of.sum():,} of {len(of):,} {name} images" for name, of in known.items() if of.any())
    return told and f"{told} show parts that are learnt from; training with data.split=new_parts keeps them apart."


def require_enough(rows: Mapping[str, Indices], processes: int) -> None:
    """Refuse more processes than a subset has images, since each needs one to take part.

    Raises:
        UserError: naming the subset.
    """
    for subset, of_subset in rows.items():
        if len(of_subset) < processes:
            raise UserError(f"trainer.devices: {processes} processes share {len(of_subset)} {subset} images; use fewer")


def digest(folder: Folder, rows: Mapping[str, Indices]) -> str:
    """What is learnt: which images train and validate, and as what. It is the same wherever the root lies."""
    learnt = hashlib.sha256()
    for subset in ("train", "val"):
        learnt.update(f"{subset}\n".encode())
        for row, label in zip(rows[subset], folder.labels[rows[subset]], strict=True):
            learnt.update(os.fsencode(f"{folder.files[row]} {label}\n"))
    return learnt.hexdigest()


def _three_ways(
    folder: Folder, parts: Indices | None, rows: Indices, settings: Mapping[str, Any], test_fold: int, val_fold: int
) -> dict[str, Indices]:
    fitted, test = _hold_out(folder, parts, rows, settings, "test_fraction", test_fold)
    train, val = _hold_out(folder, parts, fitted, settings, "val_fraction", val_fold)
    return {"train": train, "val": val, "test": test}


def _hold_out(
    folder: Folder, parts: Indices | None, rows: Indices, settings: Mapping[str, Any], fraction_key: str, fold: int
) -> tuple[Indices, Indices]:
    """Divide rows of the folder into the rest and the held out."""
    labels, fraction, seed = folder.labels[rows], settings[fraction_key], settings["seed"]
    try:
        if settings["split"] == "first_of_class":
            rest, held = first_of_class(labels, fraction)
        elif settings["split"] == "stratified":
            rest, held = stratified(labels, fraction, seed)
        else:
            assert parts is not None
            hold_out = by_part if settings["split"] == "new_parts" else grouped
            rest, held = hold_out(labels, parts[rows], fraction, seed, fold)
    except ValueError as error:
        shown, what = rows, "images"
        if parts is not None and settings["split"] in ("grouped", "new_parts"):
            shown, what = parts[rows], "parts"
        counts = ", ".join(
            f"{len(np.unique(shown[labels == label]))} {what} of {name}/" for label, name in enumerate(folder.classes)
        )
        raise UserError(
            f"data.{fraction_key}={fraction}: that share of {counts} cannot be held out, too few of a class; add {what}"
        ) from error
    return rows[rest], rows[held]


def _shots(folder: Folder, parts: Indices, settings: Mapping[str, Any]) -> dict[str, Indices]:
    good, defective = settings["shots"]
    counts = [defective, good] if folder.classes[0] == settings["defect_class"] else [good, defective]
    try:
        test, drawn = a_handful(folder.labels, parts, counts, settings["seed"])
    except ValueError as error:
        raise UserError(f"data.shots=[{good},{defective}]: asks for {error}") from error
    # So few parts cannot be spared for validation as well.
    return {"train": drawn, "val": drawn, "test": test}


def _require_parts(folder: Folder, parts: Indices, settings: Mapping[str, Any]) -> None:
    """Refuse in the first fold what a later one would lack: parts of a class, once the largest fold is held out."""
    folds, inner = (folds_of(settings[share]) for share in ("test_fraction", "val_fraction"))
    needed = next(n for n in range(folds, folds * inner + folds) if n - -(-n // folds) >= inner)
    for label, name in enumerate(folder.classes):
        if (found := len(np.unique(parts[folder.labels == label]))) < needed:
            raise UserError(
                f"data.split=new_parts: {name}/ shows {found} parts; {folds} folds for tests (data.test_fraction) and "
                f"{inner} of the others for validation (data.val_fraction) need {needed} of each class"
            )


def _require_one_class(folder: Folder, parts: Indices, table: str | None) -> None:
    _, first, part = np.unique(parts, return_index=True, return_inverse=True)
    odd = np.flatnonzero(folder.labels != folder.labels[first][part])
    if len(odd):
        files = [folder.files[row] for row in (first[part[odd[0]]], odd[0])]
        raise UserError(
            f"data.groups={table}: {files[0]} and {files[1]} show one part, yet lie in two classes (as images of "
            f"{len(np.unique(part[odd])):,} parts do); a part is good or defective: name the images that lie wrong in "
            "data.corrections, or give them a group of their own"
        )
