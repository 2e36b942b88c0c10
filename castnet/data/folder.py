"""A folder of class folders: which images there are, and of which class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from castnet.errors import UserError
from castnet.imaging.decode import SUFFIXES
from castnet.imaging.listing import class_folders, list_images, subset_folders, written_otherwise


@dataclass(frozen=True)
class Folder:
    """The images below a root.

    Attributes:
        root: the folder.
        classes: the two class names in ImageFolder's order, which is alphabetical; class 1 is what the sigmoid means.
        files: paths relative to the root, in posix form; sorted within a class.
        labels: class indices, int64 (n,).
        is_test: whether the image lies in root/test, bool (n,); None where the root has no train/ and test/.
        others: files among them that are no images by their names, see `castnet.imaging.listing.Listing`.
    """

    root: Path
    classes: list[str]
    files: list[str]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_] | None
    others: Counter[str]

    @property
    def paths(self) -> "Paths":
        return Paths(self.root, self.files)


class Paths(Sequence[Path]):
    """Files below a root as paths, each made when it is asked for: a million of them would take half a gigabyte."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: Any) -> Any:
        return Paths(self.root, self.files[row]) if isinstance(row, slice) else self.root / self.files[row]


def read_folder(root: Path, defect_class: str) -> Folder:
    """List the images below root/train/CLASS and root/test/CLASS or, where these are missing, root/CLASS.

    Args:
        root: folder with exactly two classes.
        defect_class: name of the class folder that holds the defective castings.

    Raises:
        UserError: the root is missing or empty, has other than two classes, a class without images, different
            classes in train and test, no class `defect_class`, or Train/ or Test/; or a folder is of two of them.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root={root}: no such folder; expected class folders of images there, or train/ and test/"
        )
    parts = list(subset_folders(root).values())
    if len(parts) == 1:
        raise UserError(f"data.root={root}: has {parts[0].name}/ alone; expected both train/ and test/, or neither")
    seen: dict[tuple[int, int], Path] = {}
    listings = [_list_classes(part, seen) for part in parts or [root]]
    classes = listings[0][0]
    if any(names != classes for names, *_ in listings):
        raise UserError(f"data.root={root}: train/ has the classes {classes} but test/ has {listings[1][0]}")
    if defect_class not in classes:
        raise UserError(
            f"data.defect_class={defect_class}: no such class folder in {root}; it has {_quoted(classes)}"
            f"{written_otherwise(defect_class, classes)}"
        )
    by_class = [images for _, listing, _ in listings for images in listing]
    sizes = [sum(map(len, listing)) for _, listing, _ in listings]
    outside = len((root / "x").as_posix()) - 1
    return Folder(
        root=root,
        classes=classes,
        files=[image[outside:] for images in by_class for image in images],
        labels=np.repeat(np.arange(len(by_class)) % 2, [len(images) for images in by_class]),
        is_test=np.repeat([False, True], sizes) if parts else None,
        others=sum((others for *_, others in listings), Counter()),
    )


def correct_labels(folder: Folder, corrections: Mapping[str, Sequence[str]], kept: NDArray[np.int64]) -> Folder:
    """The folder with images counted to the class they belong to instead of the one whose folder they lie in.

    Args:
        folder: the images.
        corrections: paths relative to the root, by class name; those that the folder does not have do not matter.
        kept: rows of images that stay in the class of their folder all the same.

    Raises:
        UserError: there is no such class, or an image is to be of both.
    """
    labels = folder.labels.copy()
    if twice := set.intersection(*map(set, corrections.values())) if len(corrections) > 1 else set():
        raise UserError(f"data.corrections: names {min(twice)} for two classes; expected one")
    for name, files in corrections.items():
        if name not in folder.classes:
            raise UserError(
                f"data.corrections.{name}: no such class in {folder.root}; it has {_quoted(folder.classes)}"
            )
        labels[np.isin(folder.files, files)] = folder.classes.index(name)
    labels[kept] = folder.labels[kept]
    return replace(folder, labels=labels)


def _list_classes(folder: Path, seen: dict[tuple[int, int], Path]) -> tuple[list[str], list[list[str]], Counter[str]]:
    """The names of both classes, the images of each, in posix form, and the files beside them.

    Args:
        folder: what the class folders lie in.
        seen: the folders of other classes and of the other part, by device and inode; those of these are added.
    """
    try:
        names = [entry.name for entry in class_folders(folder)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    if len(names) != 2:
        found = _quoted(names) if names else "none"
        raise UserError(
            f"data.root={folder}: expected two class folders, one of defective and one of good castings; found "
            f"{found}; move others away, or judge images of one class by `castnet predict`"
        )
    images: list[list[str]] = []
    others: Counter[str] = Counter()
    for name in names:
        if not name.isprintable():  # it stands in the checkpoint, in pages and in tables
            raise UserError(f"{folder / name}: a class has a name of printable characters; rename the folder")
        listing = list_images(folder / name)
        if listing.unreadable:
            raise next(iter(listing.unreadable.values()))
        if not listing.images:
            raise UserError(
                f"data.root={folder}: a class folder has no images ({name}/; {', '.join(sorted(SUFFIXES))})"
            )
        for number, place in listing.folders.items():
            if number[1] and number in seen:  # some mounted folders have no number
                raise UserError(
                    f"data.root={folder}: {seen[number]} and {place} are one folder, whose images would be learnt as "
                    "two things, or learnt and judged; remove the link"
                )
            seen[number] = place
        images.append([path.as_posix() for path in listing.images])
        others += listing.others
    return names, images, others


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"{name}/" for name in names)
