"""What a folder of castings really holds: copies on both sides of the split, doubtful labels, odd images."""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from rich.progress import track

from castnet.audit.duplicates import Bar, find_copies, in_parallel
from castnet.audit.findings import Audit, Reading, conclude
from castnet.audit.listing import Listing, list_folder, read_pairs
from castnet.audit.page import PAIRS_SHOWN, page
from castnet.audit.spectra import Spectra
from castnet.audit.unwrap import unwrapped_spectrum
from castnet.errors import UserError
from castnet.files import hold, write_whole
from castnet.imaging.decode import decode, read_file

OUTPUTS = ("audit.html", "audit.json", "groups.csv")


def audit(
    root: Path, out: Path, same: Path | None = None, progress: bool = True, *, called: Path | None = None
) -> Audit:
    """Examine root/{train,test}/CLASS/* or root/CLASS/* and write audit.html, audit.json and groups.csv.

    The page shows thumbnails of the images: mind the terms of a data set before passing it on. groups.csv has the
    columns file and group: every readable image and the number of its group.

    Args:
        root: folder of class folders.
        out: folder for the three files, made if missing.
        same: table with the columns file and same_as: pairs that a person saw to be one part, photographed twice.
        progress: show progress bars.
        called: what the report calls the root, if that is yet to get its name.

    Raises:
        UserError: the root is missing or holds no images, `same` is missing or names other files, or `out` already
            holds an audit or is about to, or lies in the root.
    """
    listing = list_folder(root)
    known = [] if same is None else read_pairs(same, listing.files)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is no folder; name one for the audit's three files")
    if root.resolve() in Path(os.path.realpath(out)).parents:  # which may be a link to itself
        raise UserError(
            f"--out {out}: lies in the audited folder, where training would take it for a class; name another"
        )
    with hold(out):
        for name in OUTPUTS:
            if (out / name).exists():
                raise UserError(f"{out / name} exists already; choose another folder for the audit, or remove it")
        return _examined(replace(listing, root=called or root), root, out, known, partial(track, disable=not progress))


def _examined(listing: Listing, root: Path, out: Path, known: Sequence[tuple[int, int]], bar: Bar) -> Audit:
    spectra = Spectra(len(listing.files))

    def read(index: int) -> Reading | str:
        try:
            data = read_file(root / listing.files[index])
            image = decode(data)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except UserError as error:
            return str(error).removeprefix("image: ")
        spectrum, located = unwrapped_spectrum(image)
        spectra[np.array([index])] = spectrum[None]
        return Reading(
            digest=hashlib.sha256(data).hexdigest(),
            size=f"{image.shape[1]}×{image.shape[0]}",
            mean=float(image.mean()),
            contrast=float(image.std()),
            located=located,
        )

    images = in_parallel(read, range(len(listing.files)), bar, "reading")
    if all(isinstance(image, str) for image in images):
        raise UserError(
            f"{listing.root}: none of its {len(images)} images can be read; {listing.files[0]}: {images[0]}"
        )
    group, closest = find_copies(spectra, PAIRS_SHOWN, bar)
    # Identical files belong together even where there is nothing in them to compare.
    first: dict[str, int] = {}
    for index, image in enumerate(images):
        if isinstance(image, Reading):
            group[index] = group[first.setdefault(image.digest, index)]
    for one, other in known:
        group[group == group[other]] = group[one]
    closest = [
        pair
        for pair in closest
        if isinstance(images[pair.first], Reading)
        and isinstance(images[pair.second], Reading)
        and group[pair.first] != group[pair.second]
    ]
    result = conclude(listing, images, group)

    readable = [index for index, image in enumerate(images) if isinstance(image, Reading)]
    groups = StringIO()
    writer = csv.writer(groups, lineterminator="\n")
    writer.writerow(["file", "group"])
    # Groups are numbered by their first file, whoever represents them: `resplit` draws in this order.
    _, firsts, members = np.unique(group[readable], return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(firsts))[members]
    writer.writerows((listing.files[index], number) for index, number in zip(readable, numbers, strict=True))
    found = json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n"
    html = page(root, listing.files, result, group, closest, spectra)
    # A name that is no text is an escape in JSON and HTML; in the table, which is read again, it stays the bytes it is.
    contents = (html, "backslashreplace"), (found, "backslashreplace"), (groups.getvalue(), "surrogateescape")
    write_whole(
        {out / name: text.encode(errors=errors) for name, (text, errors) in zip(OUTPUTS, contents, strict=True)}
    )
    return result
