"""Images to compare models on, and what is known of them: from class folders, or from what people said on record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from castnet.errors import UserError, extra
from castnet.imaging.listing import list_images
from castnet.imaging.tables import read_column

DECISIONS = {"good": False, "defective": True}  # what people decide, and whether it is the defect


@dataclass(frozen=True)
class Known:
    """One image.

    Attributes:
        name: path relative to the folder, in posix form, or the name that the record has.
        read: gives its file, or the content of one.
        is_defect: whether the casting is defective; None where nobody said so.
        part: which it shows; alone in that as long as nothing else is known.
    """

    name: str
    read: Callable[[], Path | bytes]
    is_defect: bool | None
    part: str


def images_of(where: str, is_defect: Mapping[str, bool]) -> tuple[list[Known], dict[str, str]]:
    """All images of a folder, or all that a record keeps.

    Args:
        where: a folder, or the URL of a record. The truth of a folder's images is in their class folders, wherever
            below it these lie, or in the folder's own name; that of a record's is the last that people said of them.
        is_defect: by the names of class folders, whether they hold the defect.

    Returns:
        The images, and what cannot be read, by name, with the reason.

    Raises:
        UserError: there is no such folder or record, or it has no images.
    """
    if "://" in where:
        return _of_record(where), {}
    root = Path(where)
    if not root.is_dir():
        raise UserError(f"{where}: no such folder; expected a folder of images, or the URL of a record")
    listing = list_images(root)
    if not listing.images:
        reason = next(iter(listing.unreadable.values()), "no images there")
        raise UserError(f"{where}: {reason}; expected class folders of images: {', '.join(sorted(is_defect))}")
    found = []
    for path in listing.images:
        name = path.relative_to(root).as_posix()
        folders = (*name.split("/")[:-1], root.resolve().name)
        folder = next((part for part in folders if part in is_defect), None)
        found.append(Known(name, partial(Path, path), None if folder is None else is_defect[folder], name))
    return found, {str(path): str(error) for path, error in listing.unreadable.items()}


def without_password(where: str) -> str:
    """A folder or a record as people are told of it, without a password."""
    if "://" not in where:
        return where
    from castnet.database import shown

    return shown(where)


def _of_record(url: str) -> list[Known]:
    with extra("record"):
        import sqlalchemy as sa

        from castnet.line.record import images, open_record, reading, reviews, verdicts

    engine = open_record(url)

    def read(digest: str) -> bytes:
        with reading(engine), engine.connect() as connection:
            return connection.execute(sa.select(images.c.content).where(images.c.image == digest)).scalar() or b""

    said = (
        sa.select(images.c.image, verdicts.c.name, reviews.c.is_defect)
        .join_from(images, verdicts, verdicts.c.image == images.c.image)
        .outerjoin(reviews, reviews.c.verdict_id == verdicts.c.id)
        .order_by(reviews.c.time, verdicts.c.time)
    )
    found: dict[str, Known] = {}
    with reading(engine), engine.connect() as connection:
        for digest, name, is_defect in connection.execute(said):
            before = found.get(digest)
            known = before.is_defect if before and is_defect is None else is_defect
            found[digest] = Known(name or digest, partial(read, digest), known, digest)
    if not found:
        raise UserError(f"{without_password(url)}: keeps no images to compare on; `--keep` has a line keep them")
    return list(found.values())


def with_parts(images: Sequence[Known], where: str, table: Path) -> list[Known]:
    """The same images with the parts that a table tells.

    Args:
        images: what `images_of` found; the table's column `file` has their names, or those relative to the folder that
            holds theirs: an audit's table serves the test/ of what was audited.
        where: the folder or the record.
        table: with the columns `file` and `group`, see `castnet.imaging.tables.read_column`.

    Raises:
        UserError: as `castnet.imaging.tables.read_column`; or the table lacks an image.
    """
    groups = read_column(f"--groups {table}", table, "group")
    within = f"{Path(where).resolve().name}/"
    if not any(image.name in groups for image in images):
        groups = {file.removeprefix(within): group for file, group in groups.items() if file.startswith(within)}
    if unlisted := [image.name for image in images if image.name not in groups]:
        raise UserError(
            f"--groups {table}: lacks {unlisted[0]} ({len(unlisted):,} of {len(images):,} images missing); expected "
            "a row for every image, its path relative to the folder"
        )
    return [replace(image, part=groups[image.name]) for image in images]
