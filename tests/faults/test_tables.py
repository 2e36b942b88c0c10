"""What a table may hold, and what may stand where a file is to be written."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from castnet.audit.audit import audit
from castnet.audit.listing import read_pairs
from castnet.audit.resplit import resplit
from castnet.data.groups import read_groups
from castnet.data.sources import obtain
from castnet.errors import UserError
from castnet.export.export import export
from castnet.line.access import listen, read_token

FILES = ["a/1.jpeg", "a/2.jpeg"]
READERS: dict[str, Callable[[Path], object]] = {
    "groups": lambda table: read_groups(table, FILES),
    "pairs": lambda table: read_pairs(table, FILES),
    "resplit": lambda table: resplit(table, table.with_name("split.csv")),
    "token": lambda table: read_token("127.0.0.1", table, insist=False),
}


@pytest.mark.parametrize(
    ("reader", "what"),
    [
        *((reader, what) for reader in READERS for what in ("pipe", "folder", "missing", "link to nothing")),
        *((reader, what) for reader in ("groups", "pairs", "resplit") for what in ("cut off", "not text", "huge")),
        ("groups", "empty"), ("resplit", "empty"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_line_and_not_waited_for(reader: str, what: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    header = "file,same_as\n" if reader == "pairs" else "file,group\n"
    if what == "pipe":
        os.mkfifo(table)
    elif what == "folder":
        table.mkdir()
    elif what == "link to nothing":
        table.symlink_to("nowhere")
    elif what != "missing":
        content = {
            "cut off": f"{header}a/1.jpeg",
            "not text": f"{header}\0\xff",
            "huge": f"{header}{'x' * 200_000},1\n",
        }
        table.write_text(content.get(what, ""), encoding="latin-1")
    with pytest.raises(UserError, match=r"table\.csv"):
        READERS[reader](table)
    assert not (tmp_path / "split.csv").exists()


def test_an_image_without_a_group_is_not_put_with_others_that_have_none(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("file,group\na/1.jpeg,\na/2.jpeg,\n")
    with pytest.raises(UserError, match=r"groups\.csv: line 2 names no group of a/1\.jpeg"):
        read_groups(table, FILES)


def test_a_file_that_stands_in_two_groups_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("file,group\na/1.jpeg,1\na/2.jpeg,2\na/1.jpeg,1\na/2.jpeg,1\n")
    with pytest.raises(UserError, match=r"groups\.csv: has a/2\.jpeg twice, with group 2 and 1"):
        read_groups(table, FILES)


def test_a_table_of_another_making_is_told_by_what_it_has(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("file;group\na/1.jpeg;1\n")
    with pytest.raises(UserError, match=r"has no column file and group, but file;group; expected a CSV table in UTF-8"):
        read_groups(table, FILES)
    table.write_text("file,group\n/data/a/1.jpeg,1\n/data/b/2.jpeg,2\n")
    with pytest.raises(UserError, match=r"/data/a/1\.jpeg is not relative to the audited folder"):
        resplit(table, tmp_path / "split.csv")


def test_a_table_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("\ufefffile,group\r\na/1.jpeg,1\r\na/2.jpeg,2\r\n", newline="")
    assert read_groups(table, FILES).tolist() == [0, 1]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_settings_of_drawn_castings_that_broke_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generator.json").write_bytes(content)
    with pytest.raises(UserError, match=r"holds a broken generator\.json, asked for"):
        obtain("generated", tmp_path, {"n": 120, "seed": 0})


@pytest.mark.parametrize(
    "token",
    ["fifteen-letters", "gehe1mes-tök€n-für-alle", "first-token-of-two\nsecond-token-of-two", "a token with spaces"],
)
def test_a_token_that_no_request_can_bear_is_refused(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    asked = "a token of 16 characters" if len(token) < 16 else "one token of letters, digits and signs of ASCII, on one"
    with pytest.raises(UserError, match=f"token: expected {asked}"):
        read_token("127.0.0.1", tmp_path / "token", insist=False)


def test_a_token_is_read_as_editors_save_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_token("0.0.0.0", tmp_path / "token", insist=False) == "0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("line", False)]
)
def test_without_a_token_only_this_machine_is_answered_unless_one_insists(host: str, alone: bool) -> None:
    refused = pytest.raises(UserError, match=f"--host {host}: whoever reaches that address would be answered; name a")
    with nullcontext() if alone else refused:
        assert read_token(host, None, insist=False) is None
    assert read_token(host, None, insist=True) is None


@pytest.mark.parametrize("host", ["ä..b", "x" * 300, "no.such.host.invalid"])
def test_an_address_that_is_none_is_one_line(host: str) -> None:
    with pytest.raises(UserError, match=r"cannot be listened on .*; name another --host or --port"):
        listen(host, 0)


def test_only_files_are_replaced(castings: Path, trained: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    best = trained / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match=r"best\.ckpt: is there and no model"):
        export(trained, best)
    with pytest.raises(UserError, match="pipe: is there and no model"):
        export(tmp_path / "run", tmp_path / "pipe")
    with pytest.raises(UserError, match="file: is no folder"):
        audit(castings, tmp_path / "file", progress=False)


def test_a_split_that_the_disk_has_no_room_for_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"train/{name}/{number}.jpeg,{number}" for number in range(60) for name in (["ok", "def"][number % 2],)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))

    def fill(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill)
        with pytest.raises(OSError, match="No space left"):
            resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"groups.csv"}
    resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    assert len((tmp_path / "split.csv").read_text().splitlines()) == 61
