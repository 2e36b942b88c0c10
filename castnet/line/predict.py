"""Verdicts on files, for people and for programs: what `castnet predict` does."""

import csv
import glob
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

from castnet.errors import UserError, extra, printable
from castnet.imaging.decode import Photograph
from castnet.imaging.listing import Listing, list_images, not_looked_at
from castnet.line.inspector import Inspector, Verdict

if TYPE_CHECKING:
    from castnet.line.recorder import Recorder

GOOD, DEFECT, TROUBLE, UNSURE = 0, 1, 2, 3  # exit codes
BY_WEIGHT = (GOOD, UNSURE, DEFECT, TROUBLE)
FIELDS = (
    "file", "class", "is_defect", "p_defect", "threshold", "latency_ms", "error", "verdict", "reason", "unfamiliarity"
)  # fmt: skip

Result = Verdict | UserError
Record = Callable[[str, Inspector], "Recorder"]  # from who judges, and with what


def predict(
    model: Path, patterns: Sequence[str], form: str, record: Record | None = None, on: str | None = None
) -> int:
    """Print a verdict for every image.

    Args:
        model: what `castnet export` wrote.
        patterns: files, folders (searched in depth) and glob patterns.
        form: `table`, `json` (one object a line) or `csv`.
        record: what keeps the verdicts, if anything does.
        on: `ray` judges on a cluster, see `castnet.line.cluster`; None on this machine.

    Returns:
        Exit code: 0 all castings are good, 1 some are defective, 2 some images could not be read; 3 some are unsure, if
        none is defective and all could be read.

    Raises:
        UserError: no such model, or a pattern without images.
    """
    inspector = Inspector(model)
    found = [_find(pattern) for pattern in patterns]
    files = [file for listing in found for file in listing.images]
    photographs, sources = tee(map(Photograph, files))
    results: Iterable[Result] = inspector.inspect_many(sources)
    if on == "ray":
        with extra("ray"):
            from castnet.line.cluster import inspect_on_ray
        results = inspect_on_ray(model, files)
    codes, start = [], time.perf_counter()
    # On a terminal the verdicts themselves show how far it is, and a bar would disturb them.
    if len(files) > 1 and not sys.stdout.isatty():
        results = _with_progress(results, len(files))
    with record("predict", inspector) if record else nullcontext() as recorder:
        show = printer(form)  # which prints a header, if nothing was refused
        for listing in found:
            for path, error in listing.unreadable.items():
                show(path, error)
                codes.append(TROUBLE)
        for photograph, result in zip(photographs, results, strict=True):
            show(photograph.path, result)
            codes.append(code(result))
            if recorder and isinstance(result, Verdict):
                recorder.put_file(photograph, result)
    if line := not_looked_at(sum((listing.others for listing in found), Counter())):
        print(line, file=sys.stderr)
    if form == "table":
        unread = f", {codes.count(TROUBLE):,} not read" if TROUBLE in codes else ""
        unsure = f", {codes.count(UNSURE):,} unsure" if UNSURE in codes else ""
        print(
            f"{len(codes):,} images: {codes.count(GOOD):,} good, {codes.count(DEFECT):,} defective{unsure}{unread} "
            f"(threshold {inspector.threshold:.3g}, {time.perf_counter() - start:.1f} s)"
        )
    return worst(codes)


def _with_progress(results: Iterable[Result], total: int) -> Iterable[Result]:
    from rich.console import Console  # which takes as long to import as an image to judge
    from rich.progress import track

    console = Console(stderr=True)
    return track(results, f"Inspecting {total:,} images", total=total, console=console, transient=True)


def code(result: Result) -> int:
    """The exit code that a result alone stands for."""
    if isinstance(result, UserError):
        return TROUBLE
    return {"good": GOOD, "defective": DEFECT, "unsure": UNSURE}[result.verdict]


def worst(codes: Iterable[int]) -> int:
    """The exit code of a command that would have ended with each of these for one image."""
    return max(codes, key=BY_WEIGHT.index)


def _find(pattern: str) -> Listing:
    path = Path(pattern)
    if path.is_dir():
        found = list_images(path)
    elif os.path.lexists(path):
        found = Listing([path])
    else:
        found = _matching(path)
    if not found.images and not found.unreadable:
        raise UserError(f"{pattern}: no images there; expected image files, a folder of them or a pattern like '*.png'")
    return found


def _matching(pattern: Path) -> Listing:
    """Files that match a pattern, and folders on its way that cannot be listed, which `glob` passes over in silence."""
    parts = pattern.parts
    depth = parts.index("**") if "**" in parts else len(parts)
    above, unreadable = Path(*parts[:depth]), {}
    for folder in above.parents:
        for name in glob.glob(f"{folder}/"):
            try:
                os.scandir(name).close()
            except OSError as error:
                unreadable[Path(name)] = UserError(f"{name}: cannot be read ({error.strerror})")
    found = [Path(name) for name in sorted(glob.glob(str(above)))]
    if depth == len(parts):  # of what matches, folders are searched in depth, as named ones are
        listings = [list_images(name) if name.is_dir() else Listing([name]) for name in found]
        everything = {path: error for listing in listings for path, error in listing.unreadable.items()}
        others = sum((listing.others for listing in listings), Counter())
        return Listing([file for listing in listings for file in listing.images], unreadable | everything, others)
    images = []
    for folder in found:
        if folder.is_dir() or not folder.exists():  # searched in depth, as folders are
            listing = list_images(folder)
            images += [file for file in listing.images if _match(file.parts[len(folder.parts) :], parts[depth:])]
            unreadable |= listing.unreadable
    return Listing(images, unreadable)


def _match(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether names of folders and a file match the parts of a pattern, where `**` stands for any number of them."""
    if not parts or not names:
        return not names and set(parts) <= {"**"}
    if parts[0] == "**":
        return _match(names, parts[1:]) or _match(names[1:], parts)
    return fnmatchcase(names[0], parts[0]) and _match(names[1:], parts[1:])


def printer(form: str) -> Callable[[Path, Result], None]:
    """A function that prints results one by one, each as soon as it is there, as `table`, `json` or `csv`."""
    if form == "json":
        return lambda file, result: print(json.dumps(_fields(file, result)), flush=True)
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()

        def print_csv(file: Path, result: Result) -> None:
            writer.writerow({name: cell(value) for name, value in _fields(file, result).items()})
            sys.stdout.flush()

        return print_csv
    print("P(defect)  verdict              file")
    return _print_row


def _fields(file: Path, result: Result) -> dict[str, object]:
    if isinstance(result, UserError):
        return {"file": str(file), "error": str(result)}
    return {
        "file": str(file),
        "class": result.class_name,
        "is_defect": result.is_defect,
        "p_defect": result.p_defect,
        "threshold": result.threshold,
        "latency_ms": round(result.latency_ms, 3),
        "verdict": result.verdict,
        "reason": result.reason,
        "unfamiliarity": result.unfamiliarity,
    }


def cell(value: object) -> object:
    """Text on one line that no spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection).

    A semicolon parts cells too, where the comma is a decimal point, and what follows may be quoted.
    """
    return re.sub(r"(^|;)(?=[\s\"]*[=+@-])", r"\1'", printable(value)) if isinstance(value, str) else value


def _print_row(file: Path, result: Result) -> None:
    if isinstance(result, UserError):
        print(f"        –  not read             {printable(result)}", flush=True)
    else:
        red, plain = ("\033[31m", "\033[0m") if result.is_defect and sys.stdout.isatty() else ("", "")
        name = printable(result.class_name) + (f": {result.reason}" if result.reason else "")
        print(f"{red}{result.p_defect:9.4f}  {name:<19}  {printable(file)}{plain}", flush=True)
