"""What people decided goes back into training."""

import csv
import hashlib
import json
import re
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from castnet.drawn.folder import draw
from castnet.errors import UserError
from castnet.export.export import export
from castnet.line.inspector import Inspector
from castnet.line.known import DECISIONS, images_of
from castnet.line.record import engine_for, images, open_record, reviews, verdicts
from castnet.line.review import STRATA, decide
from castnet.line.reviewed import write_reviewed
from tests.conftest import Command, castnet, castnet_here
from tests.line.conftest import connect


def test_judged_overruled_retrained_and_now_right(
    model: Path, inspector: Inspector, run_train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Castings with a dark blot are what these people call defective; the model knows nothing of it yet."""
    monkeypatch.chdir(tmp_path)
    camera, url = tmp_path / "camera", "sqlite:///line.db"
    camera.mkdir()
    for index in range(64):
        pixels, _ = draw((17, index), defective=False)
        if index % 2:
            pixels[60:240, 60:240] = 0
        Image.fromarray(pixels).save(camera / f"{index}.png")
    castnet("predict", model, camera, "--record", url, "--keep", "all")

    overruled = {}
    with connect(url).begin() as connection:
        for row in connection.execute(sa.select(verdicts)).all():
            is_defect = int(Path(row.name).stem) % 2 == 1
            stratum = next(name for name, verdict in STRATA.items() if verdict == row.verdict)
            assert decide(connection, row.id, stratum, is_defect)
            if row.verdict != ("defective" if is_defect else "good"):
                overruled[Path(row.name)] = is_defect
    assert len(overruled) > 8

    ran = castnet("reviewed", url, "again")
    assert ran.returncode == 0, ran.stderr
    assert "32 defective, 32 good" in ran.stdout
    files = {path.relative_to("again").as_posix() for path in Path("again").glob("*/*.png")}
    assert len(files) == 64
    with Path("again/provenance.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["file"] for row in rows} == files
    for row in rows:
        content = (Path("again") / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["image"]
        assert content == Path(row["name"]).read_bytes()
        assert row["decision"] == row["file"].partition("/")[0]
        assert row["verdict"] == inspector.inspect(content).verdict

    # Two epochs of 1,600 images: a folder this small has but two batches.
    steps = ["callbacks=default", "+data.epoch_images=1600"]
    trained = run_train(
        "data.root=again", "data.defect_class=defective", "data.groups=again/groups.csv", *steps,
        folder="retrained",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    export(trained.folder, tmp_path / "new.onnx")
    new = Inspector(tmp_path / "new.onnx")
    # So few photographs leave some of them unfamiliar: what counts here is on which side of the threshold they are.
    judged = {path: new.inspect(path) for path in overruled}
    wrong = [str(path) for path, seen in judged.items() if (seen.p_defect > seen.threshold) != overruled[path]]
    assert not wrong, f"{len(wrong)} of {len(overruled)}"


def put(url: str, name: str, content: bytes | None, decision: bool, decided: float) -> None:
    image = hashlib.sha256(content or name.encode()).hexdigest()
    with connect(url).begin() as connection:
        number = hashlib.md5(f"{name}{decided}".encode()).hexdigest()
        row = {"id": number, "name": name, "image": image, "model": "", "source": "watch", "verdict": "good"}
        numbers = {"time": 0.0, "p_defect": 0.25, "unfamiliarity": 0.5, "latency_ms": 0.0}
        connection.execute(verdicts.insert(), {**row, **numbers})
        decided_on = {"verdict_id": number, "is_defect": decision, "drawn_as": "passed", "time": decided}
        connection.execute(reviews.insert(), decided_on)
        if content and not connection.execute(sa.select(images.c.image).where(images.c.image == image)).first():
            connection.execute(images.insert(), {"image": image, "content": content, "bytes": 1, "time": 0.0})


def casting(index: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(draw((18, index), defective=False)[0]).save(buffer, "JPEG")
    return buffer.getvalue()


def test_one_photograph_stands_there_once_and_what_is_not_kept_or_broken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("LC_ALL", "C"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")):
        monkeypatch.setenv(variable, value)  # the table is UTF-8 all the same
    url, folder = f"sqlite:///{tmp_path / 'line.db'}", tmp_path / "again"
    first, quarter = casting(0), BytesIO()
    with Image.open(BytesIO(first)) as image:
        Image.fromarray(np.rot90(np.asarray(image))).save(quarter, "PNG")
    turned = quarter.getvalue()
    put(url, "again.jpeg", first, True, 2)
    put(url, "a.jpeg", first, False, 1)  # on record later than the decision after it
    put(url, "gedréht", turned, True, 3)
    for index in range(1, 5):
        put(url, f"={index}.jpeg", casting(index), False, 4)
    put(url, "gone.jpeg", None, True, 5)
    put(url, "current.jpeg", None, True, 5.1)
    put(url, "current.jpeg", b"none", True, 5.2)
    put(url, "torn.jpeg", casting(5)[:500], True, 6)
    put(url, "none.jpeg", b"no image", True, 7)
    ran = castnet("reviewed", url, folder)
    assert ran.returncode == 1, ran.stderr
    lines = [line for line in re.sub(r" \([0-9a-f]+\)", "", ran.stdout).splitlines() if "left out" in line]
    assert len(lines) == 5
    assert lines[:2] == [f"{name}.jpeg: left out, its image is not on record" for name in ("gone", "current")]
    assert lines[2].startswith("current.jpeg: left out, its image cannot be read")
    assert lines[3].startswith("torn.jpeg: left out, its image cannot be read as an image (image file is truncated")
    assert lines[4].startswith("none.jpeg: left out, its image cannot be read")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    one = f"defective/{hashlib.sha256(first).hexdigest()[:16]}.jpeg"
    other = f"defective/{hashlib.sha256(turned).hexdigest()[:16]}.png"
    assert len(files) == 6
    assert {one, other} == {file for file in files if file.startswith("defective")}, "the later decision counts"
    known, _ = images_of(url, DECISIONS)
    assert [image.is_defect for image in known if image.part == hashlib.sha256(first).hexdigest()] == [True]
    provenance = (folder / "provenance.csv").read_text(encoding="utf-8")
    assert "gedréht" in provenance
    assert ",'=1.jpeg," in provenance  # no formula
    with (folder / "provenance.csv").open(encoding="utf-8") as table:
        told = {(row["p_defect"], row["unfamiliarity"], row["judged"]) for row in csv.DictReader(table)}
    assert told == {("0.25", "0.5", "1970-01-01T00:00:00+00:00")}
    with (folder / "groups.csv").open() as table:
        group = {row["file"]: row["group"] for row in csv.DictReader(table)}
    assert group.keys() == set(files)
    assert group[one] == group[other]
    assert len(set(group.values())) == 5
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = castnet("reviewed", url, folder)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_whose_audit_failed_is_not_there_and_can_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = f"sqlite:///{tmp_path / 'line.db'}", tmp_path / "again"
    put(url, "a.jpeg", casting(0), False, 1)

    def fail(*_: object, **__: object) -> None:
        raise UserError("the audit failed")

    with monkeypatch.context() as failing:
        failing.setattr("castnet.audit.audit.audit", fail)
        assert castnet_here("reviewed", url, folder) == 2
    assert "the audit failed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []
    assert castnet_here("reviewed", url, folder) == 0
    one_class = "again: 0 defective, 1 good; to train on them, decide on images of the other class too"
    assert capsys.readouterr().out.splitlines()[-1].endswith(one_class)
    assert {path.name for path in folder.iterdir()} >= {"good", "defective", "groups.csv", "provenance.csv"}
    assert json.loads((folder / "audit.json").read_text(encoding="utf-8"))["root"] == str(folder)


def test_nothing_to_write_is_one_line_and_no_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'line.db'}"
    assert castnet("reviewed", url, tmp_path / "again").stderr.startswith(f"error: {url}: no such record")
    put(url, "gone.jpeg", None, True, 5)
    ran = castnet("reviewed", url, tmp_path / "again")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "no image of them" in ran.stderr
    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []


def test_an_image_other_than_the_one_that_was_judged_is_left_out_and_nothing_lies_elsewhere(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path / 'line.db'}", tmp_path / "in" / "again"
    folder.parent.mkdir()
    put(url, "a.jpeg", casting(0), False, 1)
    put(url, "b.jpeg", casting(1), True, 2)
    elsewhere = "../../../b"
    with connect(url).begin() as connection:
        of_b = hashlib.sha256(casting(1)).hexdigest()
        for table in (images, verdicts):
            connection.execute(table.update().where(table.c.image == of_b).values(image=elsewhere))
        connection.execute(verdicts.update().values(time=1.7e12))  # milliseconds, as another program may count
    written = write_reviewed(url, folder, print)
    assert (written.counts, len(written.left_out)) == ({"good": 1}, 1)
    assert "b.jpeg (../../../b): left out, its image on record is not the one that was judged" in written.left_out
    assert sorted(path.name for path in tmp_path.rglob("*.jpeg")) == [
        f"{hashlib.sha256(casting(0)).hexdigest()[:16]}.jpeg"
    ]
    assert "1700000000000.0" in (folder / "provenance.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("tables", ["create table orders (id)", "create table verdicts (id)"])
def test_a_database_that_is_no_record_is_one_line_and_stays_as_it_is(tables: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute(tables)
    before = (tmp_path / "shop.db").read_bytes()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with pytest.raises(UserError, match=r"shop\.db: cannot be read \(.*no such (table|column): verdicts"):
        write_reviewed(url, tmp_path / "again", print)
    with pytest.raises(UserError, match=r"shop\.db: cannot be read"):
        images_of(url, {"def": True, "ok": False})
    assert (tmp_path / "shop.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


def test_a_record_where_nothing_can_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'line.db'}"
    connect(url).dispose()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with open_record(url).connect() as connection:
        assert connection.execute(sa.select(verdicts)).all() == []
        assert [path.name for path in tmp_path.iterdir()] == ["line.db"]


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite:///q?.db"]
)
def test_a_record_in_memory_is_refused_for_its_verdicts_would_be_lost(url: str) -> None:
    with pytest.raises(UserError, match=r"record: sqlite:.* is not a file alone"):
        engine_for(url)


def test_the_folder_that_one_stands_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, here = f"sqlite:///{tmp_path / 'line.db'}", tmp_path / "here"
    put(url, "a.jpeg", casting(0), False, 1)
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match="is the folder in which this command runs"):
        write_reviewed(url, Path("."), lambda made: None)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'line.db'}"
    put(url, "a.jpeg", casting(0), False, 1)
    (tmp_path / "disk").mkdir()
    (tmp_path / "again").symlink_to("disk")
    with pytest.raises(UserError, match="again: exists and is not empty"):
        write_reviewed(url, tmp_path / "again", lambda made: None)
    assert (tmp_path / "again").is_symlink()


def test_a_place_where_a_disk_is_mounted_is_refused_before_the_work(tmp_path: Path, small_disk: Path) -> None:
    url = f"sqlite:///{tmp_path / 'line.db'}"
    put(url, "a.jpeg", casting(0), False, 1)
    with pytest.raises(UserError, match=f"a disk is mounted there; name a new folder on it, such as {small_disk}/"):
        write_reviewed(url, small_disk, lambda made: pytest.fail("audited"))
