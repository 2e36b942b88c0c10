"""What people decided, as a folder to train on: what `castnet reviewed` writes."""

import csv
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from castnet.database import shown
from castnet.errors import UserError, printable, written
from castnet.imaging.decode import decode, format_of
from castnet.line.known import DECISIONS
from castnet.line.predict import cell
from castnet.line.record import images, open_record, reading, reviews, verdicts

CLASSES = tuple(DECISIONS)
COLUMNS = (
    "file", "name", "verdict_id", "judged", "model", "p_defect", "unfamiliarity", "verdict", "reason", "decision",
    "decided", "image",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What stands in the folder: images of each class, and of others that people decided on which they are, and why."""

    counts: Counter[str]
    left_out: list[str]

    def describe(self, folder: Path) -> str:
        """How many there are, how to train on them, and a line for each that is missing."""
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in sorted(CLASSES))
        named = {"root": folder, "defect_class": CLASSES[1], "groups": folder / "groups.csv"}
        settings = " ".join(written(f"data.{key}", value) for key, value in named.items())
        then = f"train with data=folder {settings}"
        if not all(self.counts[name] for name in CLASSES):
            then = "to train on them, decide on images of the other class too"
        return "\n".join((f"{folder}: {counts}; {then}", *map(printable, self.left_out)))


def write_reviewed(url: str, folder: Path, finish: Callable[[Path], object]) -> Written:
    """Write every image that people decided on as folder/good/* or folder/defective/*, and provenance.csv.

    An image goes by the first 16 digits of its SHA-256, so that one that was judged twice stands there once; of two
    decisions on it the later one counts. provenance.csv has a row for every decision, with `COLUMNS`; times are UTC.

    Args:
        url: of the record, see `castnet.line.record.engine_for`.
        folder: to make; it must not exist or be empty, and appears when it is whole.
        finish: adds what belongs in the folder, which has another name until then.

    Raises:
        UserError: there is no such record, no image of a decision is kept, or the folder is there, cannot be written,
            has a disk mounted there or is where this process runs.
    """
    engine = open_record(url)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError(f"{folder}: exists and is not empty; nothing is overwritten, so name a new folder or remove it")
    if folder.resolve() == Path.cwd():  # what takes its place would not be seen from here
        raise UserError(f"{folder}: is the folder in which this command runs; name a new one")
    if folder.is_mount():  # whose place nothing can take
        raise UserError(f"{folder}: a disk is mounted there; name a new folder on it, such as {folder / 'reviewed'}")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f"{folder.name}.") as work:
            made = Path(work) / folder.name
            rows, file_of, left_out = _write_decided(engine, made)
            with (made / "provenance.csv").open("w", encoding="utf-8", newline="", errors="surrogateescape") as table:
                writer = csv.writer(table, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(_provenance(row, file_of.get(row.image, "")) for row in rows)
            finish(made)
            made.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); name a new folder") from error
    return Written(Counter(file.partition("/")[0] for file in file_of.values()), left_out)


def _write_decided(engine: sa.Engine, folder: Path) -> tuple[Sequence[sa.Row[Any]], dict[str, str], list[str]]:
    """Every decision, the last one last; the file written of each image by its digest, and why of others none is."""
    decided = (
        sa.select(verdicts, reviews.c.is_defect, reviews.c.time.label("decided"))
        .join(reviews, reviews.c.verdict_id == verdicts.c.id)
        .order_by(reviews.c.time)
    )
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    file_of: dict[str, str] = {}
    left_out: list[str] = []
    with reading(engine), engine.connect() as connection:
        rows = connection.execute(decided).all()
        for image, row in {row.image: row for row in rows}.items():  # the last decision
            named = f"{row.name or row.id} ({image[:16]})"  # names come again, as of a camera that overwrites a file
            kept = sa.select(images.c.content).where(images.c.image == image)
            if (content := connection.execute(kept).scalar()) is None:
                left_out.append(f"{named}: left out, its image is not on record")
                continue
            if hashlib.sha256(content).hexdigest() != image:  # which names its file
                left_out.append(f"{named}: left out, its image on record is not the one that was judged")
                continue
            try:
                decode(content)
            except UserError as error:
                left_out.append(f"{named}: left out, its image {str(error).removeprefix('image: ')}")
                continue
            file_of[image] = f"{CLASSES[row.is_defect]}/{image[:16]}.{format_of(content).lower()}"
            (folder / file_of[image]).write_bytes(content)
    if not file_of:
        raise UserError(
            f"{shown(engine.url)}: has {len(rows):,} decisions and no image of them; the page's Review makes "
            "decisions, and --keep has a line keep its images"
        )
    return rows, file_of, left_out


def _utc(time: float) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(time, UTC).isoformat()
    return str(time)  # that no calendar has, as another program may have written it


def _provenance(row: sa.Row[Any], file: str) -> tuple[object, ...]:
    judged, decided = _utc(row.time), _utc(row.decided)
    how = (row.p_defect, row.unfamiliarity, row.verdict, row.reason)
    return file, cell(row.name), row.id, judged, row.model, *how, CLASSES[row.is_defect], decided, row.image
