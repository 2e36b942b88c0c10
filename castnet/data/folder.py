"""A folder of class folders: which images there are, and of which class."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import ImageFolder

from castnet.errors import UserError
from castnet.imaging.decode import SUFFIXES, decode
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
        """The files as paths, (n,)."""
        return Paths(self.root, self.files)


class Paths(Sequence[Path]):
    """Files below a root as paths, each made when it is asked for: a million of them would take half a gigabyte."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: Any) -> Any:
        return Paths(self.root, self.files[row]) if isinstance(row, slice) else self.root / self.files[row]


class ClassFolders(ImageFolder):  # type: ignore[misc]
    """torchvision's ImageFolder of two classes, with the images that every command finds there.

    Args:
        root: what the class folders lie in.
        seen: the folders of other classes and of the other part, by device and inode; those of these are added.

    Attributes:
        others: files that are no images by their names, see `castnet.imaging.listing.Listing`.

    Raises:
        UserError: there are other than two classes, or one without images, or a folder is of two of them.
    """

    def __init__(self, root: Path, seen: dict[tuple[int, int], Path]) -> None:
        self.others, self._seen = Counter[str](), seen
        super().__init__(root, loader=lambda path: decode(Path(path)))

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        try:
            names = [entry.name for entry in class_folders(Path(directory))]
        except OSError as error:
            raise UserError(f"{directory}: cannot be read ({error.strerror})") from error
        if len(names) != 2:
            todo = "move others away" if len(names) > 2 else "add the other" if names else "add both"
            raise UserError(
                f"data.root={directory}: expected two class folders, one of defective and one of good castings; found "
                f"{_quoted(names) if names else 'none'}; {todo}, or judge images of one class by `castnet predict`"
            )
        for name in names:
            if not name.isprintable():  # it stands in the checkpoint, in pages and in tables
                raise UserError(
                    f"{Path(directory, name)}: a class has a name of printable characters; rename the folder"
                )
        return names, {name: label for label, name in enumerate(names)}

    def make_dataset(
        self, directory: str | Path, class_to_idx: dict[str, int], **_kinds: object
    ) -> list[tuple[str, int]]:
        return [(path, label) for name, label in class_to_idx.items() for path in self._images(Path(directory), name)]

    def _images(self, root: Path, name: str) -> Iterator[str]:
        listing = list_images(root / name)
        if listing.unreadable:
            raise next(iter(listing.unreadable.values()))
        if not listing.images:
            raise UserError(f"data.root={root}: a class folder has no images ({name}/; {', '.join(sorted(SUFFIXES))})")
        for number, place in listing.folders.items():
            if number[1] and number in self._seen:  # some mounted folders have no number
                raise UserError(
                    f"data.root={root}: {self._seen[number]} and {place} are one folder, whose images would be learnt "
                    "as two things, or learnt and judged; remove the link"
                )
            self._seen[number] = place
        self.others += listing.others
        return (path.as_posix() for path in listing.images)


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
        missing = "test" if parts[0].name == "train" else "train"
        raise UserError(
            f"data.root={root}: has {parts[0].name}/ and no {missing}/; expected both, or class folders alone"
        )
    seen: dict[tuple[int, int], Path] = {}
    listed = [ClassFolders(part, seen) for part in parts or [root]]
    classes = listed[0].classes
    if listed[-1].classes != classes:
        raise UserError(f"data.root={root}: train/ has the classes {classes} but test/ has {listed[-1].classes}")
    if defect_class not in classes:
        raise UserError(
            f"data.defect_class={defect_class}: no such class folder in {root}; it has {_quoted(classes)}"
            f"{written_otherwise(defect_class, classes)}"
        )
    outside = len((root / "x").as_posix()) - 1
    return Folder(
        root=root,
        classes=classes,
        files=[path[outside:] for images in listed for path, _ in images.samples],
        labels=np.concatenate([np.array(images.targets) for images in listed]),
        is_test=np.repeat([False, True], [len(images) for images in listed]) if parts else None,
        others=sum((images.others for images in listed), Counter()),
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


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"{name}/" for name in names)
