"""The pixel block: every image is decoded once, and all of them lie in one memory-mapped file."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import track

from castnet.errors import UserError
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import RESAMPLE

# A change to decoding or resampling must change this, or blocks made before it would be taken for current.
FORMAT = "castnet-pixels-1"
CHUNK = 1024


def pixel_block(files: Sequence[Path], size: int, resample: str, cache_dir: Path) -> Grey:
    """Return the files' pixels as one read-only memory map, decoding them if this was not done before.

    The block's name is a hash of the files' names, sizes and modification times, so a changed folder gets a new one.

    Args:
        files: images, in the order of the block's rows.
        size: side of the stored images in pixels.
        resample: a key of `RESAMPLE`.
        cache_dir: folder for blocks, made if missing. It may be emptied whenever nothing runs.

    Returns:
        uint8 memory map (len(files), size, size).

    Raises:
        UserError: some files are unreadable (the first ones are named).
    """
    stats = ((file, file.stat()) for file in files)
    identity = "\n".join([FORMAT, f"{size} {resample}", *(f"{f} {s.st_size} {s.st_mtime_ns}" for f, s in stats)])
    target = cache_dir / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    if not target.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".partial-{os.getpid()}")
        try:
            _decode_all(files, size, RESAMPLE[resample], partial)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")


def _decode_all(files: Sequence[Path], size: int, resample: Callable[[Grey, int], Grey], target: Path) -> None:
    block = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(files), size, size))

    def store(row: int) -> str | None:
        try:
            block[row] = resample(decode(files[row]), size)
        except UserError as error:
            return str(error)
        return None

    problems: list[str] = []
    with ThreadPoolExecutor() as pool:  # Pillow's decoders and numpy's products release the GIL
        for start in track(range(0, len(files), CHUNK), f"Decoding {len(files):,} images", transient=True):
            rows = range(start, min(start + CHUNK, len(files)))
            problems += [problem for problem in pool.map(store, rows) if problem]
    block.flush()
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems):,} of {len(files):,} images are unreadable: "
            "`castnet audit ROOT` lists them all; mend or remove them"
        )
