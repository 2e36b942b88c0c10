"""The pixel block: every image is decoded once, and all of them lie in one memory-mapped file."""

import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from castnet.errors import UserError
from castnet.files import claim, lock, remove_leftovers, turn
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import RESAMPLE
from castnet.signals import interruptible_threads

# A change to decoding or resampling must change this, or blocks made before it would be taken for current.
FORMAT = "castnet-pixels-2"
CHECKSUM_BYTES = 4
CHUNK = 1024


def pixel_block(files: Sequence[Path], size: int, resample: str, cache_dir: Path) -> Grey:
    """Return the files' pixels as one read-only memory map, decoding them if this was not done before.

    The block's name is a hash of the files' names, sizes and times, so a changed folder gets a new one, as does
    another that took its place under the same times of modification; a block that was damaged since is made anew.

    Args:
        files: images, in the order of the block's rows.
        size: side of the stored images in pixels.
        resample: a key of `RESAMPLE`.
        cache_dir: folder for blocks, made if missing. It may be emptied whenever nothing runs.

    Returns:
        uint8 memory map (len(files), size, size).

    Raises:
        UserError: some files are unreadable (the first ones are named), or the cache has no room.
    """
    name = _identity(files, size, resample)
    target = cache_dir / f"{name}.npy"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # One process at a time decodes, so that of several that want the same block one does and the others have it.
        with turn(cache_dir):
            if target.exists():
                if _is_whole(target):
                    return np.load(target, mmap_mode="r")
                print(f"{target}: is damaged, so the images are decoded again", file=sys.stderr, flush=True)
            remove_leftovers(cache_dir, "*.partial-*")
            partial = target.with_suffix(f".partial-{os.getpid()}")
            try:
                _decode_all(files, size, RESAMPLE[resample], partial, name)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        megabytes = len(files) * size**2 / 2**20
        raise UserError(
            f"paths.cache_dir={cache_dir}: cannot be written ({error.strerror}); expected a folder with room for "
            f"{megabytes:,.1f} MB of decoded images"
        ) from error
    return np.load(target, mmap_mode="r")


def fingerprints(block: Grey, rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """A number for each of some images, the same for the same pixels and practically no others.

    Args:
        block: uint8 (N, side, side).
        rows: which of its rows, (n,).

    Returns:
        64 bits of BLAKE2b, int64 (n,).
    """
    hashes = (hashlib.blake2b(block[row], digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(hashes), dtype=np.int64)


def _identity(files: Sequence[Path], size: int, resample: str) -> str:
    identity = hashlib.sha256(f"{FORMAT}\n{size} {resample}".encode())
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        identity.update(os.fsencode(f"\n{file} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"))
    return identity.hexdigest()[:32]


def _is_whole(target: Path) -> bool:
    """Whether a block ends with the checksum of what stands before and of its name, so that it is no other's."""
    try:
        content = np.memmap(target, mode="r")
    except ValueError:  # it is empty
        return False
    return _checksum(content[:-CHECKSUM_BYTES], target.stem) == content[-CHECKSUM_BYTES:].tobytes()


def _checksum(content: Grey, name: str) -> bytes:
    return zlib.crc32(content.data, zlib.crc32(name.encode())).to_bytes(CHECKSUM_BYTES)


def _decode_all(
    files: Sequence[Path], size: int, resample: Callable[[Grey, int], Grey], target: Path, name: str
) -> None:
    block = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(files), size, size))
    with target.open("r+b") as file:
        lock(file)
        claim(file, os.fstat(file.fileno()).st_size + CHECKSUM_BYTES)
        _fill(block, files, size, resample)
        block.flush()
        content = np.memmap(target, mode="r")[:-CHECKSUM_BYTES]
        file.seek(-CHECKSUM_BYTES, os.SEEK_END)
        file.write(_checksum(content, name))


def _fill(block: Grey, files: Sequence[Path], size: int, resample: Callable[[Grey, int], Grey]) -> None:
    def store(row: int) -> str | None:
        try:
            block[row] = resample(decode(files[row]), size)
        except UserError as error:
            return str(error)
        return None

    problems: list[str] = []
    with interruptible_threads() as pool:
        for start in track(range(0, len(files), CHUNK), f"Decoding {len(files):,} images", transient=True):
            rows = range(start, min(start + CHUNK, len(files)))
            problems += [problem for problem in pool.map(store, rows) if problem]
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems):,} of {len(files):,} images are unreadable: "
            "`castnet audit` of their folder lists them all; mend or remove them"
        )
