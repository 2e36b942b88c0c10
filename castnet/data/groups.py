"""What is known of the parts: which images show the same one, and which subset each belongs to."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from castnet.data.split import Indices
from castnet.errors import UserError
from castnet.imaging import tables
from castnet.imaging.listing import written_otherwise

SUBSETS = ("train", "val", "test")


def read_column(key: str, table: Path, column: str, files: list[str]) -> list[str]:
    """Read one column of a table of images, in the order of a folder's files.

    Args:
        key: the setting that names the table, for messages.
        table, column: see `castnet.imaging.tables.read_column`.
        files: paths relative to the folder, as in the column `file`.

    Returns:
        One value for each file.

    Raises:
        UserError: as `castnet.imaging.tables.read_column`; or the table lacks an image.
    """
    values = tables.read_column(f"data.{key}={table}", table, column)
    if unlisted := [file for file in files if file not in values]:
        counts = f"{len(unlisted):,} of {len(files):,} files missing"
        listed = f"; it lists others, such as {next(iter(values))}" if values and len(unlisted) == len(files) else ""
        alike = written_otherwise(unlisted[0], values)
        raise UserError(f"data.{key}={table}: lacks {unlisted[0]} ({counts}){alike or listed}")
    return [values[file] for file in files]


def read_groups(table: Path, files: list[str]) -> Indices:
    """The group of each file as a number, int64 (n,), from a table with the columns file and group."""
    return np.unique(read_column("groups", table, "group", files), return_inverse=True)[1]


def read_subsets(table: Path, files: list[str]) -> dict[str, Indices]:
    """Rows of the train, val and test files, from a table with the columns file and split.

    Raises:
        UserError: as `read_column`; or the table names other subsets, or leaves one empty.
    """
    names = np.array(read_column("assignment", table, "split", files))
    found = set(names.tolist())
    if found != set(SUBSETS):
        raise UserError(f"data.assignment={table}: expected the subsets train, val and test, found {sorted(found)}")
    return {name: np.flatnonzero(names == name) for name in SUBSETS}


def read_slices(slices: Mapping[str, str], files: list[str]) -> dict[str, NDArray[np.bool_]]:
    """Images to judge by themselves, bool (n,) by name.

    Args:
        slices: by name, either a pattern of file names, such as `*/new__*`, or TABLE.csv:COLUMN, which makes a slice of
            every value of that column.
        files: paths relative to the folder, as in a table's column `file`.

    Raises:
        UserError: a pattern matches no file, or a table is missing, lacks the column or lacks an image.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    for name, rule in slices.items():
        table, _, column = rule.rpartition(":")
        if table.lower().endswith(".csv"):
            values = np.array(read_column(f"slices.{name}", Path(table), column, files))
            found |= {f"{name}: {value}": values == value for value in np.unique(values)}
        else:
            found[name] = np.array([fnmatch(file, rule) for file in files])
            if not found[name].any():
                raise UserError(
                    f"data.slices.{name}={rule}: matches no image; expected a pattern such as */new__*, or "
                    "TABLE.csv:COLUMN"
                )
    return found
