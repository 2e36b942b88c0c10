"""Rows of the fault table on the way from a file to a verdict; `benchmarks/faults.py` runs them."""

import random
from io import BytesIO

import numpy as np
from fault_table import Ground, Tally, row
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import decode

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


def samples() -> dict[str, list[bytes]]:
    """Small images of every accepted format, in several modes, for others to be made from."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found: dict[str, list[bytes]] = {}
    for kind in FORMATS:
        for mode in ("L", "RGB", "1", "P", "CMYK"):
            buffer = BytesIO()
            try:
                Image.fromarray(pixels).convert(mode).save(buffer, kind)
            except OSError:  # the format knows no such mode
                continue
            found.setdefault(kind, []).append(buffer.getvalue())
    return found


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file after a few bytes were flipped, cut off, repeated or moved."""
    torn = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, how = chance.randrange(len(torn)), chance.randrange(5)
        if how == 0:
            torn[place] = chance.randrange(256)
        elif how == 1:
            torn[place] ^= 1 << chance.randrange(8)
        elif how == 2:
            del torn[max(place, 1) :]
        elif how == 3:
            torn[place:place] = torn[place : place + chance.randrange(1, 64)]
        else:
            torn[place : place + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
    return bytes(torn)


@row("fuzzed images of every accepted format, decoded")
def fuzzed_images(ground: Ground, tally: Tally) -> None:
    chance, kinds = random.Random(0), samples()
    assert set(kinds) == set(FORMATS)
    for _ in range(ground.count(100_000)):
        kind = chance.choice(FORMATS)
        content = damaged(chance.choice(kinds[kind]), chance)
        try:
            image = decode(content)
        except UserError:
            tally.add(kind)
        except BaseException as error:
            tally.add(f"{kind} {content[:200].hex()}: {error!r}", traceback=True)
        else:
            whole = image.dtype == np.uint8 and image.ndim == 2 and image.size > 0
            tally.add(f"{kind} {content[:200].hex()}", let_through=not whole)
