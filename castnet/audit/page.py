"""The page that shows an audit to a person."""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from castnet.audit.duplicates import Pair, aligned
from castnet.audit.findings import Audit
from castnet.audit.spectra import Indices, Spectra
from castnet.audit.unwrap import rectify
from castnet.imaging.decode import decode
from castnet.imaging.listing import not_looked_at
from castnet.pages import templates

TEMPLATES = templates("castnet.audit")
THUMBNAIL = 170
PAIRS_SHOWN = 18


def page(
    root: Path, files: Sequence[str], audit: Audit, group: Indices, closest: Sequence[Pair], spectra: Spectra
) -> str:
    """An audit as a self-contained HTML page with contact sheets of pairs, the second image laid over the first.

    Args:
        root: the audited folder.
        files: its images, relative to it.
        audit: what was found.
        group: the group of each image, (n,).
        closest: the most alike pairs in different groups.
        spectra: whitened, one of each image.
    """
    index_of = {file: index for index, file in enumerate(files)}

    def thumbnail(index: int, angle: float = 0.0, mirrored: bool = False) -> str:
        image = rectify(decode(root / files[index]), THUMBNAIL, angle, mirrored)
        return base64.b64encode(cv2.imencode(".jpg", image)[1].tobytes()).decode()

    def shown(pairs: Sequence[Pair]) -> list[dict[str, object]]:
        return [
            {
                "files": (files[pair.first], files[pair.second]),
                "images": (thumbnail(pair.first), thumbnail(pair.second, pair.angle, pair.mirrored)),
                "likeness": pair.likeness,
                "mirrored": pair.mirrored,
            }
            for pair in pairs
        ]

    def weakest(names: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
        pairs = np.array([[index_of[a], index_of[b]] for a, b in names], dtype=np.int64).reshape(-1, 2)
        found = [pair for start in range(0, len(pairs), 256) for pair in aligned(spectra, pairs[start : start + 256])]
        return shown(sorted(found, key=lambda pair: pair.likeness)[:PAIRS_SHOWN])

    largest = Counter(group[index_of[file]] for file in index_of if file not in audit.unreadable).most_common(12)
    return TEMPLATES.get_template("audit.html.j2").render(
        audit=audit,
        others=not_looked_at(audit.others),
        leaks=weakest([(leak.test, leak.train) for leak in audit.leaks if not leak.identical]),
        closest=shown(closest),
        two_labels=weakest([(first[0], second[0]) for first, second, *_ in map(dict.values, audit.two_labels)]),
        largest=[(thumbnail(index), count) for index, count in largest if count > 1],
    )
