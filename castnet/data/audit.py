"""What a folder of castings really holds: copies on both sides of the split, doubtful labels, odd images."""

import csv
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from castnet.data.audit_page import PAIRS_SHOWN, page
from castnet.data.duplicates import Indices, Spectra, find_copies
from castnet.data.unwrap import unwrapped_spectrum
from castnet.errors import UserError
from castnet.imaging.decode import SUFFIXES, decode

OUTPUTS = ("audit.html", "audit.json", "groups.csv")
# Modified z-score beyond which a value is an outlier (Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993).
OUTLIER = 3.5


@dataclass(frozen=True)
class Leak:
    """A test image whose group is in train.

    Attributes:
        test: the one file.
        train: the other; the same file where there is one.
        identical: whether they are byte-identical.
    """

    test: str
    train: str
    identical: bool


@dataclass(frozen=True)
class Audit:
    """What an audit found. Files are posix paths relative to the root.

    Attributes:
        root: the folder.
        counts: readable images per split ("all" where there are no train/ and test/) and class.
        unreadable: files that cannot be decoded, with the reason.
        sizes: images per size, "width×height".
        odd_sizes: files of another size than most.
        lighting_outliers: files whose mean or contrast lies more than OUTLIER robust standard deviations off.
        not_located: files in which no part was found; their copies are found only if turned around the image's centre.
        identical: sets of byte-identical files.
        identical_across: pairs of byte-identical files, one in test and one in train.
        groups: how many groups the images make: each holds the copies of one photograph, or the photographs that
            were said to show one part.
        two_labels: for each group with several classes, its files per class.
        seen: for each class the number of test images, of those that are also in train as the same file, and of those
            whose group is in train.
        leaks: the latter, each with a train image.
        disjoint: whether train and test share no group; None where there are no train/ and test/.
    """

    root: str
    counts: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    sizes: dict[str, int]
    odd_sizes: list[str]
    lighting_outliers: list[str]
    not_located: list[str]
    identical: list[list[str]]
    identical_across: int
    groups: int
    two_labels: list[dict[str, list[str]]]
    seen: dict[str, dict[str, int]]
    leaks: list[Leak]
    disjoint: bool | None

    def describe(self) -> str:
        """The findings in a few lines for a terminal."""
        images = sum(sum(classes.values()) for classes in self.counts.values())
        lines = [
            f"{self.root}: {images:,} images, which are copies of one another in {self.groups:,} groups",
            f"{len(self.unreadable):,} unreadable, {len(self.odd_sizes):,} of an odd size, "
            f"{len(self.lighting_outliers):,} in odd light, {len(self.not_located):,} in which no part was found, "
            f"{len(self.two_labels):,} groups under two labels",
        ]
        for name, seen in self.seen.items():
            lines.append(
                f"{name}: of {seen['test images']:,} test images {seen['same group']:,} have their group in train, "
                f"{seen['same file']:,} of them as the same file"
            )
        verdict = {
            None: "There are no train/ and test/ to compare.",
            True: "Train and test are disjoint.",
            False: f"Train and test are not disjoint: {len(self.leaks):,} test images have their group in train.",
        }
        return "\n".join([*lines, verdict[self.disjoint]])


@dataclass(frozen=True)
class _Folder:
    root: Path
    files: list[str]
    splits: list[str]
    classes: list[str]


@dataclass(frozen=True)
class _Image:
    digest: str
    size: str
    mean: float
    contrast: float
    located: bool


def audit(root: Path, out: Path, same: Path | None = None, progress: bool = True) -> Audit:
    """Examine root/{train,test}/CLASS/* or root/CLASS/* and write audit.html, audit.json and groups.csv.

    The page shows thumbnails of the images: mind the terms of a data set before passing it on. groups.csv has the
    columns file and group: every readable image and the number of its group.

    Args:
        root: folder of class folders.
        out: folder for the three files, made if missing.
        same: table with the columns file and same_as: pairs that a person saw to be one part, photographed twice.
        progress: show progress bars.

    Raises:
        UserError: the root is missing or holds no images, `same` is missing or names other files, or `out` already
            holds an audit.
    """
    folder = _list_folder(root)
    known = [] if same is None else _read_pairs(same, folder.files)
    for name in OUTPUTS:
        if (out / name).exists():
            raise UserError(f"{out / name} exists already; choose another folder for the audit, or remove it")

    bar = partial(track, disable=not progress)
    spectra = Spectra(len(folder.files))

    def read(index: int) -> _Image | str:
        try:
            data = (root / folder.files[index]).read_bytes()
            image = decode(data)
        except (OSError, UserError) as error:
            return str(error)
        spectrum, located = unwrapped_spectrum(image)
        spectra[np.array([index])] = spectrum[None]
        return _Image(
            digest=hashlib.sha256(data).hexdigest(),
            size=f"{image.shape[1]}×{image.shape[0]}",
            mean=float(image.mean()),
            contrast=float(image.std()),
            located=located,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        indices = range(len(folder.files))
        images = list(bar(pool.map(read, indices), "reading", len(indices)))
    if all(isinstance(image, str) for image in images):
        raise UserError(f"{root}: none of its {len(images)} images can be read; the first: {images[0]}")
    group, closest = find_copies(spectra, PAIRS_SHOWN, bar)
    # Identical files belong together even where there is nothing in them to compare.
    first: dict[str, int] = {}
    for index, image in enumerate(images):
        if isinstance(image, _Image):
            group[index] = group[first.setdefault(image.digest, index)]
    for one, other in known:
        group[group == group[other]] = group[one]
    closest = [
        pair
        for pair in closest
        if isinstance(images[pair.first], _Image)
        and isinstance(images[pair.second], _Image)
        and group[pair.first] != group[pair.second]
    ]
    result = _conclude(folder, images, group)

    out.mkdir(parents=True, exist_ok=True)
    readable = [index for index, image in enumerate(images) if isinstance(image, _Image)]
    with (out / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "group"])
        numbers = np.unique(group[readable], return_inverse=True)[1]
        writer.writerows((folder.files[index], number) for index, number in zip(readable, numbers, strict=True))
    (out / "audit.json").write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "audit.html").write_text(page(root, folder.files, result, group, closest, spectra), encoding="utf-8")
    return result


def _list_folder(root: Path) -> _Folder:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected class folders of images there, or train/ and test/")
    parts = {name: root / name for name in ("train", "test") if (root / name).is_dir()} or {"all": root}
    found = [
        (path.relative_to(root).as_posix(), split, path.relative_to(part).parts[0])
        for split, part in parts.items()
        for path in sorted(part.glob("*/**/*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not found:
        raise UserError(f"{root}: no images in class folders; expected CLASS/* or train/CLASS/* and test/CLASS/* there")
    files, splits, classes = (list(column) for column in zip(*found, strict=True))
    return _Folder(root, files, splits, classes)


def _read_pairs(same: Path, files: Sequence[str]) -> list[tuple[int, int]]:
    index_of = {file: index for index, file in enumerate(files)}
    try:
        with same.open(newline="", encoding="utf-8") as lines:
            return [(index_of[row["file"]], index_of[row["same_as"]]) for row in csv.DictReader(lines)]
    except OSError as error:
        raise UserError(f"{same}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise UserError(
            f"{same}: {error} is missing; expected the columns file,same_as with files of the audited folder"
        ) from error


def _conclude(folder: _Folder, images: Sequence[_Image | str], group: Indices) -> Audit:
    unreadable = {file: image for file, image in zip(folder.files, images, strict=True) if isinstance(image, str)}
    readable = {index: image for index, image in enumerate(images) if isinstance(image, _Image)}

    def files_where(condition: Callable[[_Image], bool]) -> list[str]:
        return [folder.files[index] for index, image in readable.items() if condition(image)]

    def together(key: Callable[[int], object]) -> list[list[int]]:
        sets: dict[object, list[int]] = defaultdict(list)
        for index in readable:
            sets[key(index)].append(index)
        return list(sets.values())

    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for index in readable:
        counts[folder.splits[index]][folder.classes[index]] += 1
    sizes = Counter(image.size for image in readable.values())
    usual = sizes.most_common(1)[0][0]
    dark, bright = _usual_range([image.mean for image in readable.values()])
    flat, harsh = _usual_range([image.contrast for image in readable.values()])

    groups = together(lambda index: group[index])
    two_labels = []
    for members in groups:
        labels: dict[str, list[str]] = defaultdict(list)
        for index in members:
            labels[folder.classes[index]].append(folder.files[index])
        if len(labels) > 1:
            two_labels.append(dict(labels))

    identical = [members for members in together(lambda index: readable[index].digest) if len(members) > 1]
    train_groups = {group[index]: index for index in readable if folder.splits[index] == "train"}
    train_files = {readable[index].digest: index for index in readable if folder.splits[index] == "train"}
    seen: dict[str, dict[str, int]] = {}
    leaks: list[Leak] = []
    for index, image in readable.items():
        if folder.splits[index] != "test":
            continue
        of_class = seen.setdefault(folder.classes[index], {"test images": 0, "same file": 0, "same group": 0})
        is_identical, is_seen = image.digest in train_files, group[index] in train_groups
        for name, holds in zip(of_class, (True, is_identical, is_seen), strict=True):
            of_class[name] += holds
        if is_seen:
            train = train_files[image.digest] if is_identical else train_groups[group[index]]
            leaks.append(Leak(folder.files[index], folder.files[train], is_identical))
    return Audit(
        root=str(folder.root),
        counts={split: dict(of_split) for split, of_split in counts.items()},
        unreadable=unreadable,
        sizes=dict(sizes.most_common()),
        odd_sizes=files_where(lambda image: image.size != usual),
        lighting_outliers=files_where(
            lambda image: not (dark <= image.mean <= bright and flat <= image.contrast <= harsh)
        ),
        not_located=files_where(lambda image: not image.located),
        identical=[[folder.files[index] for index in members] for members in identical],
        identical_across=sum(
            splits["train"] * splits["test"]
            for splits in (Counter(folder.splits[index] for index in members) for members in identical)
        ),
        groups=len(groups),
        two_labels=two_labels,
        seen=seen,
        leaks=leaks,
        disjoint=not leaks if {"train", "test"} <= set(folder.splits) else None,
    )


def _usual_range(values: Sequence[float]) -> tuple[float, float]:
    median = float(np.median(values))
    deviation = float(np.median(np.abs(np.array(values) - median))) / 0.6745
    return median - OUTLIER * deviation, median + OUTLIER * deviation
