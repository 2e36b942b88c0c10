"""Tables of images: what a CSV file says of each."""

import csv
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from castnet.errors import UserError
from castnet.imaging.decode import open_file


def open_table(path: Path) -> TextIO:
    """Open a CSV table of files for the `csv` module; names that are no text stay the bytes they are.

    Raises:
        OSError: see `open_file`.
    """
    return TextIOWrapper(open_file(path), newline="", encoding="utf-8-sig", errors="surrogateescape")


def read_column(setting: str, table: Path, column: str) -> dict[str, str]:
    """Read one column of a table that has a row for every image.

    Args:
        setting: how the user named the table, for messages.
        table: CSV with the columns `file` and `column`, such as an audit's groups.csv.
        column: the one to read.

    Returns:
        Its values by file.

    Raises:
        UserError: the table is missing or broken, lacks a column or a group, or says two things of one file.
    """
    if not table.is_file():
        of_split = column == "split"
        writes = (
            "`castnet resplit GROUPS.csv OUT.csv` writes one"
            if of_split
            else "`castnet audit FOLDER` writes groups.csv"
        )
        raise UserError(f"{setting}: no such file; {writes}")
    values: dict[str, str] = {}
    try:
        with open_table(table) as lines:
            reader = csv.DictReader(lines)
            if missing := {"file", column} - set(reader.fieldnames or []):
                found = ", ".join(reader.fieldnames or [])[:80]
                raise UserError(
                    f"{setting}: has no column {' and '.join(sorted(missing))}, but {found or 'nothing'}; expected a "
                    "CSV table in UTF-8, with commas between its columns"
                )
            for row in reader:
                file, value = row["file"], row[column]
                if file is None or value is None:
                    raise UserError(f"{setting}: line {reader.line_num} is cut off, without {column} or file")
                if column == "group" and not value:  # all such images would be one part
                    raise UserError(f"{setting}: line {reader.line_num} names no group of {file}")
                if values.setdefault(file, value) != value:
                    raise UserError(f"{setting}: has {file} twice, with {column} {values[file]} and {value}")
    except (OSError, csv.Error) as error:
        raise UserError(f"{setting}: cannot be read as a CSV table ({error})") from error
    return values
