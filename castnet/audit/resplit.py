"""An honest split of an audited folder: every group lies in train, val or test as a whole."""

import csv
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from castnet.errors import UserError
from castnet.files import turn, write_whole
from castnet.imaging.listing import class_of
from castnet.imaging.tables import read_column

TRIALS = 200_000


def resplit(groups_csv: Path, out_csv: Path, seed: int = 0) -> None:
    """Split the images anew, so that no group lies in two splits: about 72 % train, 18 % val, 10 % test of each class.

    StratifiedGroupKFold deals the largest groups out first, one to each fold; where few photographs have many copies it
    would test on a single one. So random draws compete instead, and of those within a tenth of the shares wins the
    one with the most groups of the class that has fewest there. A group with images of both classes goes to train, for
    its labels cannot judge anything. The same file and seed give the same split.

    Args:
        groups_csv: an audit's groups.csv; the class is the folder below train/ and test/, or the first.
        out_csv: gets the columns file, group and split.
        seed: of the draws.

    Raises:
        UserError: the seed is negative; groups.csv is missing or malformed, or has a file in two groups; out_csv
            exists; or a class has too few groups.
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: expected 0 or more")
    group_of = read_column(str(groups_csv), groups_csv, "group")
    if not group_of:
        raise UserError(f"{groups_csv}: lists no images; expected the groups.csv of an audit")
    classes = np.array([_class_of(groups_csv, file) for file in group_of])
    labels, label = np.unique(classes, return_inverse=True)
    # An audit's numbers in their order, which the draw depends on; 7 and 07 are two groups, as for who trains by them.
    names = {name: at for at, name in enumerate(sorted(set(group_of.values()), key=lambda name: (len(name), name)))}
    group = np.array([names[name] for name in group_of.values()])
    images = np.zeros((len(names), len(labels)), dtype=np.int64)
    np.add.at(images, (group, label), 1)
    rng = np.random.default_rng(seed)
    name_of = np.full(len(names), "train", dtype="<U5")
    for name, share in (("test", 0.10), ("val", 0.18)):
        is_mixed = np.count_nonzero(images, axis=1) > 1
        rest = np.flatnonzero((name_of == "train") & ~is_mixed)
        # Each subset that is dealt later needs a group of each class, but train where one of two labels goes there.
        needed = int(name == "test") + (~images[is_mixed].any(0)).astype(np.int64)
        name_of[rest[_draw(images[rest], share * images.sum(0), needed, rng)]] = name
    for name in ("train", "val", "test"):
        if not images[name_of == name].any(0).all():
            both = np.count_nonzero(np.count_nonzero(images, axis=1) > 1)
            raise UserError(
                f"{groups_csv}: a class has too few groups for train, val and test to have one each"
                + (f"; {both:,} of {len(images):,} groups stand under two labels, and go to train" if both else "")
            )
    split = name_of[group]
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "group", "split"])
    writer.writerows((*row, name) for row, name in zip(group_of.items(), split, strict=True))
    with turn(out_csv.absolute().parent):
        if out_csv.exists():
            raise UserError(f"{out_csv} exists already; choose another file, or remove it")
        write_whole({out_csv: table.getvalue().encode(errors="surrogateescape")})


def _class_of(groups_csv: Path, file: str) -> str:
    if file.startswith("/") or {".", ".."} & set(file.split("/")):
        raise UserError(
            f"{groups_csv}: {file} is not relative to the audited folder; expected the groups.csv of an audit"
        )
    if not (name := class_of(file)):
        raise UserError(f"{groups_csv}: {file} lies in no class folder; expected the groups.csv of an audit")
    return name


def _draw(
    images: NDArray[np.int64], quota: NDArray[np.float64], needed: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of groups to hold out, given the images of each group and class and how many images of each class.

    Of each class `needed` groups are left for others, however few images these have.
    """
    # Of a few large groups one is held out, whatever its share.
    smallest = np.where(images > 0, images, images.sum()).min(axis=0, initial=images.sum())
    room, groups = np.maximum(1.1 * quota, smallest), images > 0
    spare = np.maximum(groups.sum(0) - needed, 0)

    def draw() -> tuple[tuple[float, ...], list[int]]:
        held, left, chosen = np.zeros_like(quota), spare, []
        for group in rng.permutation(len(images)):
            if (held + images[group] <= room).all() and (left >= groups[group]).all():
                held, left = held + images[group], left - groups[group]
                chosen.append(int(group))
        least = np.count_nonzero(images[chosen], axis=0).min() if (held >= 0.9 * quota).all() else 0
        return (least, -np.abs(held / quota - 1).sum()), chosen

    draws = [draw() for _ in range(max(1, min(1000, TRIALS // max(1, len(images)))))]
    return np.array(max(draws, key=lambda scored: scored[0])[1], dtype=np.int64)
