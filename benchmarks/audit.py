"""What `castnet audit` finds of planted copies, and what it costs.

A fifth of the images are generated castings, the others are copies of those in train/, laid into test/: rotated by any
angle, mirrored or not, rescaled by 0.85-1.15, shifted by up to 5 % of the width, brightened or darkened by up to 20 %,
and encoded anew. Half of the castings come in series of eight: of one mould, laid down alike under one lamp, so that
shadows, reflections and vanes are the same, while turning marks, stains and defects are each casting's own. Precision
and recall are those of pairs of images; no pair of a series may be taken for one photograph.

With --lamps every folder is one series of 250 castings, and 50 copies of them.

    python benchmarks/audit.py
    python benchmarks/audit.py --sizes 100000
    python benchmarks/audit.py --lamps 52 61 63 68
"""

import argparse
import csv
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from castnet.audit.audit import audit
from castnet.drawn.camera import photograph
from castnet.drawn.casting import good_part
from castnet.drawn.defects import add_defects
from castnet.drawn.folder import generate
from castnet.imaging.decode import decode

SERIES = 8
UNDER_ONE_LAMP, THEIR_COPIES = 250, 50
SMALLEST = 160  # enough castings besides those in series for a folder of them


def draw_series(root: Path, count: int, seed: int, size: int = SERIES) -> None:
    """Add series of castings that share all but what is each casting's own to root/train; every other is defective."""

    for number in range(count * size):
        in_series, defective = number // size, bool(number % 2)
        # Other streams than those of the castings that `generate` draws, which would share a sensor's noise.
        part, flaws, camera = (np.random.default_rng((seed, number, stream)) for stream in (3, 4, 5))
        scene, image = good_part(part, setting=np.random.default_rng((seed, in_series, 6)))
        if defective:
            add_defects(image, scene, flaws)
        encoded = cv2.imencode(".jpg", photograph(image, camera), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        file = root / "train" / ("def_front" if defective else "ok_front") / f"series_{number:05d}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded.tobytes())


def disguised(image: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    """A copy that only its details betray: uint8 (height, width) to the bytes of a JPEG."""
    height, width = image.shape
    angle, scale, mirror = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.15), rng.choice([-1, 1])
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    centre = np.array([width - 1, height - 1]) / 2
    shift = centre - matrix @ centre + rng.uniform(-0.05, 0.05, 2) * width
    moved = cv2.warpAffine(image, np.column_stack([matrix, shift]), (width, height), borderMode=cv2.BORDER_REPLICATE)
    lit = np.clip(moved * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", lit, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96))])[1].tobytes()


def plant(root: Path, copies: int, seed: int) -> dict[str, str]:
    """Copy images of root/train, disguised, into root/test: the origin of each of the copies by its file."""
    originals = sorted(path for path in (root / "train").glob("*/*") if path.is_file())
    chosen = np.random.default_rng(seed).integers(0, len(originals), copies)

    def copy_one(number: int) -> tuple[str, str]:
        original = originals[chosen[number]]
        copy = root / "test" / original.parent.name / f"copy_{number}.jpeg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(disguised(decode(original), np.random.default_rng((seed, number))))
        return copy.relative_to(root).as_posix(), original.relative_to(root).as_posix()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(copy_one, range(copies)))


def precision_recall(groups_csv: Path, origins: dict[str, str]) -> tuple[float, float, int]:
    """Of pairs that share a group, those of one origin; of pairs of one origin, those found; how many share a group.

    Args:
        groups_csv: what the audit wrote.
        origins: the file that each copy was made from; all others are their own origin.
    """
    with groups_csv.open(newline="", encoding="utf-8") as file:
        found = [(row["group"], origins.get(row["file"], row["file"])) for row in csv.DictReader(file)]

    def pairs(keys: Iterable[object]) -> int:
        return sum(n * (n - 1) // 2 for n in Counter(keys).values())

    right, together = pairs(found), pairs(group for group, _ in found)
    return right / max(together, 1), right / max(pairs(origin for _, origin in found), 1), together


def in_company(root: Path, size: int) -> dict[str, str]:
    """Fill a folder with castings, half of them in series, and copies: see `plant`."""
    series = size // 10 // SERIES
    generate(root, n=size // 5 - series * SERIES, seed=size, progress=False)
    draw_series(root, series, seed=size)
    return plant(root, size - size // 5, seed=size)


def under_one_lamp(root: Path, lamp: int) -> dict[str, str]:
    """Fill a folder with one series and copies: see `plant`."""
    draw_series(root, 1, seed=lamp, size=UNDER_ONE_LAMP)
    return plant(root, THEIR_COPIES, seed=lamp)


def measure(fill: Callable[[Path, int], dict[str, str]], number: int, folder: Path) -> None:
    """Print one line of the table for a folder that is filled by a number: so many images, or of that lamp."""
    root = folder / str(number)
    origins = fill(root, number)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = audit(root, folder / f"audit_{number}", progress=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Not ru_maxrss, which begins at that of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))  # KiB
    precision, recall, found = precision_recall(folder / f"audit_{number}" / "groups.csv", origins)
    print(
        f"{result.readable:>9,} {found:>10,} {precision:>10.4f} {recall:>8.4f} {seconds:>9.1f} {cpu:>8.1f} "
        f"{peak / 2**20:>8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000], help="numbers of images")
    parser.add_argument("--lamps", type=int, nargs="+", help="seeds of lamps, under each of which all castings lie")
    args = parser.parse_args()
    sizes = args.sizes
    if min(sizes) < SMALLEST:
        parser.error(f"--sizes {min(sizes)}: expected {SMALLEST} or more")
    print(f"{os.cpu_count()} CPUs")
    print("   images pairs found  precision   recall   seconds    CPU s peak GiB")
    with tempfile.TemporaryDirectory() as folder:
        fill = under_one_lamp if args.lamps else in_company
        for number in args.lamps or sizes:  # each in a process of its own, so that the peak memory is that folder's
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(fill, number, Path(folder)))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


if __name__ == "__main__":
    from castnet import entry  # here, since the processes that are measured do not need it

    entry.guard(main)
