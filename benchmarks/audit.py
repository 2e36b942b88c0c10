"""What `castnet audit` finds of planted copies, and what it costs.

Generated castings lie in train/; a fifth of them is copied into test/, each copy rotated by any angle, mirrored or not,
rescaled by 0.85-1.15, shifted by up to 5 % of the width, brightened or darkened by up to 20 %, and encoded anew.

    python benchmarks/audit.py
    python benchmarks/audit.py --sizes 100000
"""

import argparse
import csv
import multiprocessing
import os
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from castnet.data.audit import audit
from castnet.data.generate import generate
from castnet.data.pixels import decode


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
    """Copy `copies` images of root/train, disguised, into root/test: the origin of each copy by its file."""
    rng = np.random.default_rng(seed)
    originals = sorted(path for path in (root / "train").glob("*/*") if path.is_file())
    origins = {}
    for index in rng.choice(len(originals), copies, replace=False):
        original = originals[index]
        copy = root / "test" / original.parent.name / f"copy_{original.stem}.jpeg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(disguised(decode(original), rng))
        origins[copy.relative_to(root).as_posix()] = original.relative_to(root).as_posix()
    return origins


def precision_recall(groups_csv: Path, origins: dict[str, str]) -> tuple[float, float, int]:
    """Of the pairs that share a group, those that share an origin; of the planted pairs, those found; all found."""
    with groups_csv.open(newline="", encoding="utf-8") as file:
        group = {row["file"]: row["group"] for row in csv.DictReader(file)}
    found = sum(n * (n - 1) // 2 for n in Counter(group.values()).values())
    right = sum(group[copy] == group[origin] for copy, origin in origins.items())
    return right / max(found, 1), right / len(origins), found


def measure(n: int, folder: Path) -> None:
    """Print one line of the table for n generated castings."""
    root = folder / str(n)
    generate(root, n=n, seed=n, progress=False)
    # What the generator puts into test/ are castings of their own: they only make the search larger.
    origins = plant(root, n // 5, seed=n)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = audit(root, folder / f"audit_{n}", progress=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    precision, recall, found = precision_recall(folder / f"audit_{n}" / "groups.csv", origins)
    images = sum(sum(classes.values()) for classes in result.counts.values())
    print(
        f"{images:>9,} {len(origins):>8,} {found:>8,} {precision:>10.4f} {recall:>8.4f} {seconds:>9.1f} {cpu:>8.1f} "
        f"{after.ru_maxrss / 2**20:>8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000], help="castings to generate")
    sizes = parser.parse_args().sizes
    print(f"{os.cpu_count()} CPUs")
    print("   images  planted    found  precision   recall   seconds    CPU s peak GiB")
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:  # each in a process of its own, so that the peak memory is that size's
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(n, Path(folder)))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
