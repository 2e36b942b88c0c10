"""Verdicts on files, for people and for programs: what `castnet predict` does."""

import csv
import glob
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from castnet.errors import UserError
from castnet.imaging.decode import SUFFIXES
from castnet.line.inspector import Inspector, Verdict

GOOD, DEFECT, TROUBLE = 0, 1, 2  # exit codes
FIELDS = ("file", "class", "is_defect", "p_defect", "threshold", "latency_ms", "error")

Result = Verdict | UserError


def predict(model: Path, patterns: Sequence[str], form: str) -> int:
    """Print a verdict for every image.

    Args:
        model: what `castnet export` wrote.
        patterns: files, folders (searched in depth) and glob patterns.
        form: `table`, `json` (one object a line) or `csv`.

    Returns:
        Exit code: 0 all castings are good, 1 some are defective, 2 some images could not be read.

    Raises:
        UserError: no such model, or a pattern without images.
    """
    inspector = Inspector(model)
    files = [file for pattern in patterns for file in _find(pattern)]
    show, codes, start = printer(form), [], time.perf_counter()
    # On a terminal the verdicts themselves show how far it is, and a bar would disturb them.
    progress = track(
        inspector.inspect_many(files),
        f"Inspecting {len(files):,} images",
        total=len(files),
        console=Console(stderr=True),
        transient=True,
        disable=sys.stdout.isatty() or len(files) == 1,
    )
    for file, result in zip(files, progress, strict=True):
        show(file, result)
        codes.append(code(result))
    if form == "table":
        unread = f", {codes.count(TROUBLE):,} not read" if TROUBLE in codes else ""
        print(
            f"{len(files):,} images: {codes.count(GOOD):,} good, {codes.count(DEFECT):,} defective{unread} "
            f"(threshold {inspector.threshold:.3g}, {time.perf_counter() - start:.1f} s)"
        )
    return max(codes)


def code(result: Result) -> int:
    """The exit code that a result alone stands for."""
    return TROUBLE if isinstance(result, UserError) else DEFECT if result.is_defect else GOOD


def images_below(folder: Path) -> list[Path]:
    """All images below a folder, in order; hidden files are not taken for images."""
    files = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))


def _find(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    globbed = (Path(name) for name in glob.glob(pattern, recursive=True))
    found = images_below(path) if path.is_dir() else sorted(file for file in globbed if file.is_file())
    if not found:
        raise UserError(f"{pattern}: no images there; expected image files, a folder of them or a pattern like '*.png'")
    return found


def printer(form: str) -> Callable[[Path, Result], None]:
    """A function that prints results one by one, each as soon as it is there, as `table`, `json` or `csv`."""
    if form == "json":
        return lambda file, result: print(json.dumps(_fields(file, result)), flush=True)
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()

        def print_csv(file: Path, result: Result) -> None:
            writer.writerow(_fields(file, result))
            sys.stdout.flush()

        return print_csv
    print("P(defect)  verdict     file")
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
    }


def _print_row(file: Path, result: Result) -> None:
    if isinstance(result, UserError):
        print(f"        –  not read    {result}", flush=True)
    else:
        red, plain = ("\033[31m", "\033[0m") if result.is_defect and sys.stdout.isatty() else ("", "")
        print(f"{red}{result.p_defect:9.4f}  {result.class_name:<10}  {file}{plain}", flush=True)
