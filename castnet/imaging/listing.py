"""Which images a folder holds: one rule for every command."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from castnet.errors import UserError, printable
from castnet.imaging.decode import SUFFIXES

SIDES = ("train", "test")
SHOWN = 5  # endings of files that are no images, the most frequent ones


@dataclass(frozen=True)
class Listing:
    """What was found below a folder.

    Attributes:
        images: regular files whose names end as images' do, folder by folder, both in order, without hidden ones.
        unreadable: what may hide images, by path: folders that cannot be listed, links to nothing, and entries with an
            image's name that are no regular files, such as pipes.
        others: files whose names do not end as images' do, without hidden ones, by their endings.
        folders: those that images lie in, by device and inode.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: dict[Path, UserError] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    folders: dict[tuple[int, int], Path] = field(default_factory=dict)


def not_looked_at(others: Mapping[str, int]) -> str:
    """A line for people about the `others` of a listing; empty where there are none."""
    most = Counter(others).most_common(SHOWN)
    named = [f"{count:,} {printable(ending) or 'without ending'}" for ending, count in most]
    named += [f"{len(others) - SHOWN:,} other endings"] if len(others) > SHOWN else []
    return f"Not looked at: files whose names do not end as those of images do ({', '.join(named)})." if named else ""


def list_images(folder: Path) -> Listing:
    """All images below a folder.

    Every folder is listed once, however many links lead to it, under its own path if it lies below the folder itself;
    so a link that leads back ends there. Links to files count as files.
    """
    found = Listing()
    names: dict[str, list[str]] = defaultdict(list)  # of images, by folder: a path of its own for each would be dear
    listed: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        # Links come when nothing else is left, so that what they lead to has been listed under its own path if it can.
        here = waiting.pop() if waiting else links.pop(0)
        try:
            status = here.stat()
            if (number := (status.st_dev, status.st_ino)) in listed:
                continue
            listed.add(number)
            with os.scandir(here) as entries:
                for entry in entries:
                    _sort_in(entry, names[str(here)], found, waiting, links)
            if names[str(here)]:
                found.folders[number] = here
        except OSError as error:
            found.unreadable[here] = _unreadable(here, error)
        links.sort()
    # As ImageFolder does it: a folder's own files before those of its folders.
    found.images.extend(Path(inside, name) for inside in sorted(names) for name in sorted(names[inside]))
    return found


def written_otherwise(name: str, names: Iterable[str]) -> str:
    """A hint for people where one of the names looks like `name` and is not, as macOS writes an ä; otherwise empty."""
    alike = normalize("NFC", name)
    if not any(normalize("NFC", other) == alike for other in names):
        return ""
    return f"; one looks like {name} and has other Unicode characters: copy the name, or rename it"


def is_image_name(name: str) -> bool:
    """Whether a name ends as images' do and is not hidden."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not _is_hidden(name)


def class_folders(folder: Path) -> list[Path]:
    """The folders that lie in a folder, in order, without hidden ones.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def subset_folders(root: Path) -> dict[str, Path]:
    """The folders train/ and test/ in a root, those of them that are there.

    Raises:
        UserError: a folder has such a name in other letters, which would make it a class, or the root cannot be listed.
    """
    try:
        folders = class_folders(root)
    except OSError as error:
        raise _unreadable(root, error) from error
    for folder in folders:
        if (name := folder.name.lower()) in SIDES and name != folder.name and not (root / name).is_dir():
            raise UserError(f"{folder}: would be taken for a class; rename it to {name}/")
    return {name: root / name for name in SIDES if (root / name).is_dir()}


def class_of(file: str) -> str:
    """The class folder of an image, by its path relative to a root: below train/ or test/, or the first; or empty."""
    folders = file.split("/")[:-1]
    if folders and folders[0] in SIDES:
        del folders[0]
    return folders[0] if folders else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _sort_in(
    entry: "os.DirEntry[str]",
    images: list[str],
    found: Listing,
    waiting: list[Path],
    links: list[Path],
) -> None:
    hidden = _is_hidden(entry.name)
    try:
        if entry.is_dir():
            if hidden:  # as `.ipynb_checkpoints`, which holds copies
                return
            (links if entry.is_symlink() else waiting).append(Path(entry.path))
        elif is_image_name(entry.name):
            if entry.is_file():
                images.append(entry.name)
            else:
                entry.stat()  # says why where it leads to nothing
                path = Path(entry.path)
                found.unreadable[path] = UserError(f"{path}: cannot be read (is no regular file)")
        elif not hidden:
            if entry.is_symlink():
                entry.stat()
            found.others[os.path.splitext(entry.name)[1].lower()] += 1
    except OSError as error:
        found.unreadable[Path(entry.path)] = _unreadable(Path(entry.path), error)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror})")
