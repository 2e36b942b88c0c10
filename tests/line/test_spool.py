"""A file of lines that outlives whoever writes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from castnet.line.spool import Spool


def test_what_was_left_of_a_file_that_was_never_finished_is_not_among_the_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "lines")
    spool.append(b"1\n")
    spool.path.unlink()
    (tmp_path / "lines.partial").write_bytes(b"torn")
    spool.keep()
    assert spool.path.read_bytes() == spool.read() == b"1\n"


def test_other_lines_are_fetched_from_the_first_and_without_room_for_them_all_stays(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"3\n"
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path / "lines")
    spool.append(b"1\n")
    spool.fetched = len(spool.read())
    with pytest.raises(OSError, match="No space"):
        spool.replace(full())
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]
    assert spool.path.read_bytes() == b"1\n"
    spool.replace([b"2\n", b"3\n"])
    assert spool.read() == b"2\n3\n"
