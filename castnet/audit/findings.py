"""What an audit concludes from its images and their groups, in numbers and files."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from castnet.audit.listing import Listing
from castnet.audit.spectra import Indices
from castnet.errors import printable
from castnet.imaging.listing import not_looked_at

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
        unreadable: files that cannot be decoded and folders that cannot be listed, with the reason.
        others: files in class folders that are no images by their names and were not looked at, by their endings.
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
    others: dict[str, int]
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

    @property
    def readable(self) -> int:
        """Images that were compared."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def doubt(self) -> str:
        """Why groups are not to be relied on, if most images show no part that could be laid over another."""
        if 2 * len(self.not_located) <= self.readable:
            return ""
        return (
            f"No round part was found in {len(self.not_located):,} of {self.readable:,} images: groups may join "
            "different objects and miss copies, so look at them before you use groups.csv."
        )

    def describe(self) -> str:
        """The findings in a few lines for a terminal."""
        images = self.readable
        found = f" in {self.groups:,} groups" if self.groups < images else ", no two of them copies of one another"
        lines = [
            f"{printable(self.root)}: {images:,} images{found}",
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
            None: "There are no train/ and test/ with images to compare.",
            True: "Train and test are disjoint.",
            False: f"Train and test are not disjoint. Test images whose group is in train: {len(self.leaks):,}.",
        }
        left_out = [f"Not compared (see the report): {len(self.unreadable):,}."] if self.unreadable else []
        told = [*lines, self.doubt, not_looked_at(self.others), " ".join([verdict[self.disjoint], *left_out])]
        return "\n".join(line for line in told if line)


@dataclass(frozen=True)
class Reading:
    """What is kept of an image that was read.

    Attributes:
        digest: SHA-256 of the file.
        size: "width×height".
        mean: of the grey levels.
        contrast: their standard deviation.
        located: whether a part was found in it.
    """

    digest: str
    size: str
    mean: float
    contrast: float
    located: bool


def conclude(listing: Listing, images: Sequence[Reading | str], group: Indices) -> Audit:
    """Put together what an audit found.

    Args:
        listing: the audited listing.
        images: what was read of each file, or why it cannot be read.
        group: the group of each file, (n,).
    """
    unreadable = listing.unreadable | {
        file: image for file, image in zip(listing.files, images, strict=True) if isinstance(image, str)
    }
    readable = {index: image for index, image in enumerate(images) if isinstance(image, Reading)}

    def files_where(condition: Callable[[Reading], bool]) -> list[str]:
        return [listing.files[index] for index, image in readable.items() if condition(image)]

    def together(key: Callable[[int], object]) -> list[list[int]]:
        sets: dict[object, list[int]] = defaultdict(list)
        for index in readable:
            sets[key(index)].append(index)
        return list(sets.values())

    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for index in readable:
        counts[listing.splits[index]][listing.classes[index]] += 1
    sizes = Counter(image.size for image in readable.values())
    usual = sizes.most_common(1)[0][0]
    dark, bright = _usual_range([image.mean for image in readable.values()])
    flat, harsh = _usual_range([image.contrast for image in readable.values()])

    groups = together(lambda index: group[index])
    two_labels = []
    for members in groups:
        labels: dict[str, list[str]] = defaultdict(list)
        for index in members:
            labels[listing.classes[index]].append(listing.files[index])
        if len(labels) > 1:
            two_labels.append(dict(labels))

    identical = [members for members in together(lambda index: readable[index].digest) if len(members) > 1]
    train_groups = {group[index]: index for index in readable if listing.splits[index] == "train"}
    train_files = {readable[index].digest: index for index in readable if listing.splits[index] == "train"}
    seen: dict[str, dict[str, int]] = {}
    leaks: list[Leak] = []
    for index, image in readable.items():
        if listing.splits[index] != "test":
            continue
        of_class = seen.setdefault(listing.classes[index], {"test images": 0, "same file": 0, "same group": 0})
        is_identical, is_seen = image.digest in train_files, group[index] in train_groups
        for name, holds in zip(of_class, (True, is_identical, is_seen), strict=True):
            of_class[name] += holds
        if is_seen:
            train = train_files[image.digest] if is_identical else train_groups[group[index]]
            leaks.append(Leak(listing.files[index], listing.files[train], is_identical))
    return Audit(
        root=str(listing.root),
        counts={split: dict(of_split) for split, of_split in counts.items()},
        unreadable=unreadable,
        others=dict(listing.others),
        sizes=dict(sizes.most_common()),
        odd_sizes=files_where(lambda image: image.size != usual),
        lighting_outliers=files_where(
            lambda image: not (dark <= image.mean <= bright and flat <= image.contrast <= harsh)
        ),
        not_located=files_where(lambda image: not image.located),
        identical=[[listing.files[index] for index in members] for members in identical],
        identical_across=sum(
            splits["train"] * splits["test"]
            for splits in (Counter(listing.splits[index] for index in members) for members in identical)
        ),
        groups=len(groups),
        two_labels=two_labels,
        seen=seen,
        leaks=leaks,
        disjoint=not leaks if {"train", "test"} <= counts.keys() else None,
    )


def _usual_range(values: Sequence[float]) -> tuple[float, float]:
    median = float(np.median(values))
    deviation = float(np.median(np.abs(np.array(values) - median))) / 0.6745
    return median - OUTLIER * deviation, median + OUTLIER * deviation
