"""Which images an audit looks at."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from castnet.errors import UserError
from castnet.imaging.listing import class_folders, is_image_name, list_images, subset_folders
from castnet.imaging.tables import open_table


@dataclass(frozen=True)
class Listing:
    """The images of a folder of class folders.

    Attributes:
        root: the folder.
        files: posix paths relative to it.
        splits: `train`, `test` or, where the root has no such folders, `all`.
        classes: class folder of each file.
        unreadable: what may hide images, with the reason: folders that cannot be listed, links to nothing, pipes,
            images beside the class folders, and folders of images beside train/ and test/.
        others: files in class folders that are no images by their names, by their endings.
    """

    root: Path
    files: list[str]
    splits: list[str]
    classes: list[str]
    unreadable: dict[str, str]
    others: Counter[str]


def list_folder(root: Path) -> Listing:
    """The images of root/{train,test}/CLASS/* or root/CLASS/*, searched in depth as `list_images` does.

    Raises:
        UserError: the root is missing, cannot be listed, holds no images, or Train/ or Test/.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected class folders of images there, or train/ and test/")
    parts = subset_folders(root) or {"all": root}
    found: list[tuple[str, str, str]] = []
    unreadable: dict[str, str] = {}
    others: Counter[str] = Counter()
    for path in sorted(path for part in {root, *parts.values()} for path in part.iterdir() if path.is_file()):
        if is_image_name(path.name):
            unreadable[path.relative_to(root).as_posix()] = "lies in no class folder"
    for folder in class_folders(root) if root not in parts.values() else []:
        if folder not in parts.values() and (images := list_images(folder).images):
            unreadable[folder.name] = f"{len(images):,} images lie in neither train/ nor test/"
    for split, part in parts.items():
        folders = class_folders(part)
        if split != "all" and not folders:  # as where a disk is not mounted
            unreadable[split] = "has no class folders"
        for folder in folders:
            listing = list_images(folder)
            others += listing.others
            found += [(path.relative_to(root).as_posix(), split, folder.name) for path in listing.images]
            for path, error in listing.unreadable.items():
                unreadable[path.relative_to(root).as_posix()] = str(error).removeprefix(f"{path}: ")
    if not found:
        raise UserError(
            f"{root}: no images in class folders; expected CLASS/* or train/CLASS/* and test/CLASS/* there"
            + "".join(f"; {file} {reason}" for file, reason in list(unreadable.items())[:1])
        )
    files, splits, classes = (list(column) for column in zip(*found, strict=True))
    return Listing(root, files, splits, classes, unreadable, others)


def read_pairs(same: Path, files: Sequence[str]) -> list[tuple[int, int]]:
    """Indices of pairs of files that a person saw to show one part, from a table with the columns file and same_as.

    Raises:
        UserError: the table cannot be read, lacks a column or names other files.
    """
    index_of = {file: index for index, file in enumerate(files)}
    try:
        with open_table(same) as lines:
            rows = csv.DictReader(lines)
            if missing := {"file", "same_as"} - set(rows.fieldnames or []):
                raise KeyError(min(missing))
            pairs = []
            for row in rows:
                if None in (row["file"], row["same_as"]):
                    raise UserError(f"{same}: line {rows.line_num} is cut off, without file or same_as")
                pairs.append((index_of[row["file"]], index_of[row["same_as"]]))
            return pairs
    except (OSError, csv.Error) as error:
        raise UserError(f"{same}: cannot be read ({getattr(error, 'strerror', error)})") from error
    except KeyError as error:
        raise UserError(
            f"{same}: {error} is missing; expected the columns file,same_as with files of the audited folder"
        ) from error
