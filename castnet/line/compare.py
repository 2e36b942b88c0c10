"""Whether a new model is better than the old one, and on which castings they differ: what `castnet compare` does."""

import base64
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from io import BytesIO
from itertools import tee
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from castnet.errors import UserError, printable
from castnet.files import replacing
from castnet.imaging.decode import decode
from castnet.line.inspector import Inspector, Verdict
from castnet.line.known import DECISIONS, Known, images_of, with_parts, without_password
from castnet.line.paired import Comparison, Pair
from castnet.pages import templates

HELD, FAILED, TROUBLE = 0, 1, 2  # exit codes
PICTURE, SHOWN = 240, 1000  # side in pixels of a picture, and how many of them a page has
ROWS = {
    "of": "of images",
    "old": "old model",
    "new": "new model",
    "old_alone": "old model alone",
    "new_alone": "new model alone",
    "parts_fewer": "parts with fewer",
    "parts_more": "parts with more",
}
TEMPLATES = templates("castnet.line")


def compare(
    old: Path, new: Path, where: str, out: Path, groups: Path | None, max_new_escapes: int | None, as_json: bool
) -> int:
    """Judge images by two models, print what differs and write a page that shows it.

    Args:
        old, new: what `castnet export` wrote.
        where: a folder of images, or the URL of a record, see `castnet.line.known.images_of`.
        out: page to write; one that is there is replaced once the new one is whole.
        groups: table of which images show the same part, see `castnet.line.known.with_parts`.
        max_new_escapes: if given, how many parts (images, where parts are not known) may pass the new model with a
            defect that the old one did not let pass.
        as_json: print one JSON object instead of a table.

    Returns:
        Exit code: 0 the models were compared, 1 more defects pass than `max_new_escapes`, 2 some images could not be
        judged.

    Raises:
        UserError: no such models, images, parts or folder for the page; models of other classes; or a gate for defects
            where none is known.
    """
    models = Inspector(old), Inspector(new)
    images, unreadable = _prepared(models, where, out, groups, max_new_escapes)
    name = without_password(where)
    # Told in the end, also where the disk has no room for the page by then.
    with ExitStack() as in_the_end, replacing(out) as page:
        comparison = Comparison(_judged(models, images, unreadable))
        if not comparison.pairs:
            raise UserError(f"{name}: none of its images can be judged; the first: {next(iter(unreadable.values()))}")
        gate = None
        if max_new_escapes is not None:
            found = comparison.new_escapes
            gate = {
                "max_new_escapes": max_new_escapes,
                "new_escapes": found,
                "held": found <= max_new_escapes and not unreadable,
            }
        told = {
            "old": _about(old, models[0]),
            "new": _about(new, models[1]),
            "images": len(comparison.pairs),
            "parts": len({pair.image.part for pair in comparison.pairs}) if groups else None,
            **{name: contrast and asdict(contrast) for name, contrast in _contrasts(comparison).items()},
            "changes": [_change(kind, pair) for kind, pairs in comparison.changes.items() for pair in pairs],
            "truth_unknown": sum(pair.image.is_defect is None for pair in comparison.pairs),
            "unreadable": unreadable,
            "gate": gate,
            "page": str(out),
        }
        if as_json:
            in_the_end.callback(print, json.dumps(told))
        else:
            in_the_end.callback(_print, name, comparison, told)
        page.write_text(_page(name, comparison, told), encoding="utf-8", errors="backslashreplace")
    return TROUBLE if unreadable else FAILED if gate and not gate["held"] else HELD


def _prepared(
    models: tuple[Inspector, Inspector], where: str, out: Path, groups: Path | None, max_new_escapes: int | None
) -> tuple[list[Known], dict[str, str]]:
    """The images, once all that can be asked before any is judged was asked."""
    cards = [model.card for model in models]
    old, new = ({name: name == card["defect_class"] for name in card["class_names"]} for card in cards)
    if old != new and DECISIONS not in (old, new):
        told = [f"{', '.join(sorted(card['class_names']))} apart (defect: {card['defect_class']})" for card in cards]
        raise UserError(
            f"the old model tells {told[0]}, the new one {told[1]}; expected models of the same classes, or that one "
            f"learnt {' and '.join(DECISIONS)}, as `castnet reviewed` writes them"
        )
    roles = DECISIONS | old | new
    if max_new_escapes is not None and max_new_escapes < 0:
        raise UserError(f"--max-new-escapes {max_new_escapes}: expected 0 or more")
    if out.exists() and not (out.is_file() and out.suffix == ".html"):  # a model, say, or the record
        raise UserError(f"--out {out}: is there and no page; name a new file, or one that ends in .html")
    images, unreadable = images_of(where, roles)
    if groups:
        images = with_parts(images, where, groups)
    if max_new_escapes is not None and not any(image.is_defect for image in images):
        raise UserError(
            f"--max-new-escapes: no image of {without_password(where)} is known to be defective, so none could "
            f"escape; expected images in a folder {'/ or '.join(name for name in roles if roles[name])}/, or a record "
            "with reviews"
        )
    unknown = [image.name for image in images if image.is_defect is None]
    if max_new_escapes is not None and unknown and Path(where).is_dir():  # of a record, people see some images only
        raise UserError(
            f"--max-new-escapes: {len(unknown):,} of {len(images):,} images of {where} lie in no folder "
            f"{'/ or '.join(roles)}/, such as {unknown[0]}, so that an escape among them would not count; move "
            "them into one, or away"
        )
    return images, unreadable


def _judged(models: tuple[Inspector, Inspector], images: Sequence[Known], unreadable: dict[str, str]) -> list[Pair]:
    """Both verdicts on every image; those that a model cannot judge are added to what is unreadable."""
    sources = tee(image.read() for image in images)
    progress = track(
        zip(images, *(model.inspect_many(each) for model, each in zip(models, sources, strict=True)), strict=True),
        f"Judging {len(images):,} images twice",
        total=len(images),
        console=Console(stderr=True),
        transient=True,
    )
    pairs = []
    for number, (image, old, new) in enumerate(progress, 1):
        if isinstance(old, Verdict) and isinstance(new, Verdict):
            pairs.append(Pair(image, old, new))
        else:
            says = [f"{which}: {said}" for which, said in (("old", old), ("new", new)) if isinstance(said, UserError)]
            # A record has many images of one name, as of a camera that overwrites its file.
            name = f"{image.name} (image {number:,})" if image.name in unreadable else image.name
            unreadable[name] = str(old) if str(old) == str(new) else "; ".join(says)
    return pairs


def _rows(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Which counts of a `Contrast` are shown, and what they are called."""
    return [(key, label) for key, label in ROWS.items() if told["parts"] or not key.startswith("parts")]


def _contrasts(comparison: Comparison) -> dict[str, Any]:
    return {name: getattr(comparison, name) for name in ("escapes", "overkill", "unsure")}


def _about(path: Path, model: Inspector) -> dict[str, Any]:
    card = model.card
    return {"file": str(path), "threshold": model.threshold, "castnet": card["castnet"], "exported": card["exported"]}


def _change(kind: str, pair: Pair) -> dict[str, Any]:
    keys = ("verdict", "reason", "p_defect", "unfamiliarity")
    says = {who: {key: getattr(getattr(pair, who), key) for key in keys} for who in ("old", "new")}
    truth = {True: "defective", False: "good", None: None}[pair.image.is_defect]
    return {"file": pair.image.name, "part": pair.image.part, "truth": truth, "change": kind, **says}


def _print(where: str, comparison: Comparison, told: dict[str, Any]) -> None:
    of_parts = f" of {told['parts']:,} parts" if told["parts"] else ""
    contrasts = {name: contrast for name, contrast in _contrasts(comparison).items() if contrast}
    table = Table("", title=f"{told['images']:,} images{of_parts} in {printable(where)}", title_justify="left")
    for name in contrasts:
        table.add_column(name, justify="right")
    for key, label in _rows(told):
        table.add_row(label, *(f"{getattr(contrast, key):,}" for contrast in contrasts.values()))
    table.add_row("exact p", *(f"{contrast.p_value:.3g}" for contrast in contrasts.values()))
    Console().print(table)
    if not (comparison.escapes or comparison.overkill):
        print("Nothing is known of the truth of these images, so no escapes or overkill are counted.")
    elif unknown := told["truth_unknown"]:
        print(f"Of {unknown:,} of these images the truth is not known, so no escapes or overkill of them are counted.")
    changed = {kind: len(pairs) for kind, pairs in comparison.changes.items() if pairs}
    print(f"{sum(changed.values()):,} verdicts change" + "".join(f", {n:,} {kind}" for kind, n in changed.items()))
    print(f"page: {printable(told['page'])}")
    for name, reason in told["unreadable"].items():
        named = reason.partition(": ")[0].endswith(name)
        print(printable(reason if named else f"{name}: {reason}"))
    if gate := told["gate"]:
        counts = f"{gate['new_escapes']:,} new escapes, {gate['max_new_escapes']:,} allowed"
        unknown = f", {len(told['unreadable']):,} images not judged" if told["unreadable"] else ""
        print(f"gate {'held' if gate['held'] else 'failed'}: {counts}{' (parts)' if told['parts'] else ''}{unknown}")


def _page(where: str, comparison: Comparison, told: dict[str, Any]) -> str:
    """The comparison as a page that stands alone, the dearest changes with pictures."""
    left, shown = SHOWN, {}
    for kind, pairs in comparison.changes.items():
        shown[kind] = [(pair, _picture(pair.image)) for pair in pairs[:left]]
        left -= len(shown[kind])
    return TEMPLATES.get_template("compare.html.j2").render(
        where=where,
        told=told,
        rows=_rows(told),
        contrasts=_contrasts(comparison),
        shown=shown,
        changes=comparison.changes,
    )


def _picture(known: Known) -> str | None:
    """A small JPEG file in base64; None if the image has gone since it was judged, as a line's record forgets them."""
    try:
        image = Image.fromarray(decode(known.read()))
    except UserError:
        return None
    image.thumbnail((PICTURE, PICTURE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
