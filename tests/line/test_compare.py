import csv
import errno
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser

from castnet.commands import parser
from castnet.errors import UserError
from castnet.line import compare as compare_module
from castnet.line.inspector import Inspector, Verdict
from castnet.line.known import images_of
from castnet.line.record import images, reviews, verdicts
from tests.conftest import PATIENCE, castnet
from tests.line.conftest import Put, connect


def judged(model: Path, files: list[Path]) -> list[Verdict]:
    inspector = Inspector(model)
    return [inspector.inspect(file) for file in files]


@pytest.fixture(scope="module")
def files(castings: Path) -> list[Path]:
    return sorted((castings / "test").rglob("*.jpeg"))


@pytest.fixture(scope="module")
def strict(exported: Path, model: Path, files: list[Path]) -> list[Path]:
    """Two models, of which the first passes fewer castings."""
    passed = {path: sum(v.verdict == "good" for v in judged(path, files)) for path in (exported, model)}
    found = sorted(passed, key=passed.__getitem__)
    assert passed[found[0]] < passed[found[1]]
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


Compared = Callable[..., dict[str, Any]]


@pytest.fixture
def compared(capsys: pytest.CaptureFixture[str]) -> Compared:
    """`castnet compare … --json`, in this process."""

    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        args = parser().parse_args(["compare", *map(str, arguments), "--json"])
        capsys.readouterr()
        assert args.run(args) == code
        return json.loads(capsys.readouterr().out)

    return run


def test_every_verdict_that_changes_is_told_with_both_probabilities(
    compared: Compared, strict: list[Path], castings: Path, files: list[Path], out: Path
) -> None:
    old, new = (judged(path, files) for path in strict)
    told = compared(*strict, castings / "test", "-o", out)
    names = [file.relative_to(castings / "test").as_posix() for file in files]
    expected = {
        name: (one.verdict, one.p_defect, other.verdict, other.p_defect)
        for name, one, other in zip(names, old, new, strict=True)
        if one.verdict != other.verdict
    }
    assert expected
    assert {
        change["file"]: (*(change[who][key] for who in ("old", "new") for key in ("verdict", "p_defect")),)
        for change in told["changes"]
    } == expected
    defective = [name.startswith("def_front") for name in names]
    for who, verdicts_ in (("old", old), ("new", new)):
        escapes = sum(v.verdict == "good" for v, bad in zip(verdicts_, defective, strict=True) if bad)
        overkill = sum(v.verdict == "defective" for v, bad in zip(verdicts_, defective, strict=True) if not bad)
        assert (told["escapes"][who], told["overkill"][who]) == (escapes, overkill)
    assert (told["escapes"]["of"], told["overkill"]["of"]) == (sum(defective), len(files) - sum(defective))


def test_the_gate_fails_with_1_where_more_escape_and_holds_with_0_the_other_way_round(
    compared: Compared, strict: list[Path], castings: Path, out: Path
) -> None:
    told = compared(*strict, castings / "test", "-o", out, "--max-new-escapes", 0, code=1)
    found = told["escapes"]["new_alone"]
    assert told["gate"] == {"max_new_escapes": 0, "new_escapes": found, "held": False}
    assert compared(*strict, castings / "test", "-o", out, "--max-new-escapes", found)["gate"]["held"]
    assert compared(*strict[::-1], castings / "test", "-o", out, "--max-new-escapes", 0)["gate"]["new_escapes"] == 0
    ran = castnet("compare", *strict, castings / "test", "-o", out, "--max-new-escapes", 0)
    assert ran.returncode == 1
    assert f"gate failed: {found} new escapes, 0 allowed\n" in ran.stdout


def test_parts_count_once_where_a_table_names_them(
    compared: Compared, strict: list[Path], castings: Path, files: list[Path], tmp_path: Path, out: Path
) -> None:
    """The table of an audit of the whole folder serves its test/ too."""
    table = tmp_path / "groups.csv"
    with table.open("w", newline="") as lines:
        rows = [(file.relative_to(castings).as_posix(), "all one") for file in files]
        csv.writer(lines).writerows([("file", "group"), *rows])
    told = compared(*strict, castings / "test", "-o", out, "--groups", table, "--max-new-escapes", 1)
    assert told["parts"] == 1
    assert told["escapes"]["new_alone"] > 1
    assert (told["escapes"]["parts_more"], told["escapes"]["p_value"]) == (1, 1)
    assert told["gate"]["new_escapes"] == 1


def test_a_record_is_compared_on_what_it_keeps_and_what_people_said(
    compared: Compared,
    strict: list[Path],
    files: list[Path],
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'record.db'}"
    castnet("predict", strict[0], *files, "--record", url, "--keep", "all")
    said = files[0].parent.name == "def_front"
    with connect(url).begin() as connection:
        numbers = {row.name: row.id for row in connection.execute(sa.select(verdicts))}
        review = {"verdict_id": numbers[str(files[0])], "is_defect": said, "drawn_as": "unsure", "time": time.time()}
        connection.execute(reviews.insert().values(review))
    told = compared(*strict, url, "-o", out)
    assert told["images"] == len(files)
    known, unknown = ("escapes", "overkill") if said else ("overkill", "escapes")
    assert told[known]["of"] == 1
    assert told[unknown] is None
    assert {change["file"] for change in told["changes"]} <= set(map(str, files))
    with pytest.raises(UserError, match=r"typo\.db: no such record"):
        compared(*strict, f"sqlite:///{tmp_path / 'typo.db'}", "-o", out)
    assert not (tmp_path / "typo.db").exists()


def test_of_an_image_that_was_judged_several_times_the_last_decision_counts(engine: sa.Engine, put: Put) -> None:
    with engine.begin() as connection:
        kept = [{"image": number * 64, "content": number.encode(), "bytes": 1, "time": 0.0} for number in "12"]
        connection.execute(images.insert(), kept)
    first, second, _ = (put(image="1" * 64, time=when, name="camera.jpeg")[0] for when in (1, 2, 3))
    put(image="2" * 64, time=4, name="camera.jpeg")
    with engine.begin() as connection:
        for number, is_defect, when in ((second, False, 5.0), (first, True, 6.0)):
            review = {"verdict_id": number, "is_defect": is_defect, "drawn_as": "passed", "time": when}
            connection.execute(reviews.insert().values(review))
    found, _ = images_of(engine.url.render_as_string(hide_password=False), {"bad": True, "good": False})
    assert {(known.read(), known.is_defect) for known in found} == {(b"1", True), (b"2", None)}
    assert len({known.part for known in found}) == 2, "a camera overwrites its file, and these are two castings"


def test_every_image_on_record_that_cannot_be_judged_is_counted(
    compared: Compared, strict: list[Path], engine: sa.Engine, put: Put, test_images: list[Path], out: Path
) -> None:
    contents = [test_images[0].read_bytes(), b"no image", b"none either", b"nor this"]
    with engine.begin() as connection:
        kept = [{"image": f"{n}" * 64, "content": each, "bytes": 1, "time": 0.0} for n, each in enumerate(contents)]
        connection.execute(images.insert(), kept)
    for number in range(len(contents)):
        put(image=f"{number}" * 64, time=number, name="camera.jpeg")
    told = compared(*strict, engine.url.render_as_string(hide_password=False), "-o", out, code=2)
    assert (told["images"], len(told["unreadable"])) == (1, 3), "a camera overwrites its file"


def test_an_image_that_cannot_be_judged_is_named_and_ends_with_2(
    compared: Compared, strict: list[Path], castings: Path, tmp_path: Path, out: Path
) -> None:
    folder = shutil.copytree(castings / "test", tmp_path / "test")
    (folder / "def_front" / "torn.jpeg").write_bytes(b"no image")
    told = compared(*strict, folder, "-o", out, "--max-new-escapes", 1000, code=2)
    assert "torn.jpeg: cannot be read" in told["unreadable"]["def_front/torn.jpeg"]
    assert "torn.jpeg: cannot be read" in out.read_text()
    assert not told["gate"]["held"]
    ran = castnet("compare", *strict, folder, "-o", out, "--max-new-escapes", 1000)
    assert ran.stdout.splitlines()[-1].endswith(" allowed, 1 images not judged")


def test_what_was_judged_is_told_also_where_the_page_finds_no_room(
    strict: list[Path], castings: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"page.html: cannot be written \(No space left on device\)"):
        compare_module.compare(*strict, str(castings / "test"), out, None, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["escapes"]
    assert not out.exists()


CLASSES = {"def_front": True, "ok_front": False}


def test_an_image_that_goes_while_others_are_judged_costs_its_picture_alone(
    strict: list[Path], castings: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(castings / "test", tmp_path / "test")
    page_of = compare_module._page

    def gone(*arguments: Any) -> str:
        shutil.rmtree(folder)
        return page_of(*arguments)

    monkeypatch.setattr(compare_module, "_page", gone)
    assert compare_module.compare(*strict, str(folder), out, None, None, as_json=True) == 0
    assert "The image is no longer there." in out.read_text()


def of_other_classes(model: Path, out: Path, good: str = "good", defect: str = "broken") -> Path:
    proto = onnx.load(model)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == "castnet")
    entry.value = json.dumps(json.loads(entry.value) | {"class_names": [defect, good], "defect_class": defect})
    onnx.save(proto, out)
    return out


def test_what_cannot_be_compared_is_one_line_and_leaves_the_page_alone(
    compared: Compared, model: Path, castings: Path, tmp_path: Path, out: Path
) -> None:
    out.write_text("as it was")
    test, other = castings / "test", of_other_classes(model, tmp_path / "other.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "groups.csv").write_text("file,group\nelsewhere.jpeg,1\n")
    (tmp_path / "unlabelled").mkdir()
    shutil.copytree(test, tmp_path / "misnamed")
    (tmp_path / "misnamed" / "Def_front").mkdir()
    shutil.copy(next((test / "def_front").iterdir()), tmp_path / "misnamed" / "Def_front")
    shutil.copy(next(test.rglob("*.jpeg")), tmp_path / "unlabelled")
    for arguments, message in (
        ((model, other, test), "expected models of the same classes"),
        ((model, tmp_path / "none.onnx", test), "none.onnx: no such file"),
        ((model, model, tmp_path / "nowhere"), "nowhere: no such folder"),
        ((model, model, tmp_path / "empty"), "empty: no images there"),
        ((model, model, "mysql://user:secret@host/line"), "record: "),
        ((model, model, test, "--groups", tmp_path / "groups.csv"), "groups.csv: lacks def_front/"),
        ((model, model, tmp_path / "unlabelled", "--max-new-escapes", 0), "is known to be defective"),
        ((model, model, tmp_path / "misnamed", "--max-new-escapes", 9), "1 of 13 images of"),
        ((model, model, test, "--max-new-escapes", -1), "expected 0 or more"),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as told:
            compared(*arguments, "-o", out)
        assert "secret" not in str(told.value)
    with pytest.raises(UserError, match="name a file in a folder that takes one"):
        compared(model, model, test, "-o", tmp_path / "nowhere" / "page.html")
    assert out.read_text() == "as it was"
    shutil.copy(model, copy := tmp_path / "copy.onnx")
    with pytest.raises(UserError, match=r"copy\.onnx: is there and no page"):
        compared(model, copy, test, "-o", copy)
    ran = castnet("compare", model, other, test, "-o", out)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)


def test_images_of_which_nothing_is_known_show_what_changes_and_claim_no_escapes(
    strict: list[Path], files: list[Path], tmp_path: Path, out: Path
) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    ran = castnet("compare", *strict, folder, "-o", out)
    assert ran.returncode == 0
    assert "Nothing is known of the truth of these images" in ran.stdout
    assert "other changes" in ran.stdout
    assert "Nothing is known of the truth of these images" in out.read_text()


def test_a_model_that_learnt_what_people_decided_is_compared_with_the_one_that_they_reviewed(
    compared: Compared, model: Path, castings: Path, tmp_path: Path, out: Path
) -> None:
    new = of_other_classes(model, tmp_path / "new.onnx", defect="defective")
    reviewed = tmp_path / "reviewed"
    shutil.copytree(castings / "test" / "def_front", reviewed / "defective")
    shutil.copytree(castings / "test" / "ok_front", reviewed / "good")
    alike = [
        compared(*models, folder, "-o", out, "--max-new-escapes", 0)
        for models in ((model, new), (new, model), (model, model))
        for folder in (castings / "test", reviewed)
    ]
    assert all(told["escapes"] == alike[0]["escapes"] for told in alike)
    assert all(told["truth_unknown"] == 0 for told in alike)


def test_the_truth_stands_in_class_folders_wherever_they_lie(castings: Path, tmp_path: Path) -> None:
    for name in ("test", "val"):
        shutil.copytree(castings / "test", tmp_path / "day" / name)
    shutil.copy(next((castings / "test" / "def_front").iterdir()), tmp_path / "day" / "val" / "unknown.jpeg")
    alone, _ = images_of(str(castings / "test" / "def_front"), CLASSES)
    assert {image.is_defect for image in alone} == {True}
    known, _ = images_of(str(tmp_path / "day"), CLASSES)
    truth = {True: "def_front", False: "ok_front", None: "val"}
    assert all(Path(image.name).parent.name == truth[image.is_defect] for image in known)
    assert {image.name.partition("/")[0] for image in known if image.is_defect} == {"test", "val"}


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_stands_alone_and_fits_a_telephone(
    compared: Compared, browser: Browser, strict: list[Path], castings: Path, out: Path, width: int
) -> None:
    told = compared(*strict, castings / "test", "-o", out, "--max-new-escapes", 0, code=1)
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(out.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure")
    assert figures.count() == len(told["changes"])
    escape = next(change for change in told["changes"] if change["change"] == "new escapes")
    shown = figures.filter(has_text=escape["file"]).inner_text()
    for who in ("old", "new"):
        assert f"{who} {escape[who]['p_defect']:.4f} {escape[who]['verdict']}" in shown
    picture = page.get_by_alt_text(escape["file"])
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    assert page.get_by_role("heading", name=f"New escapes: {told['escapes']['new_alone']}").is_visible()
    assert page.get_by_text("failed", exact=True).is_visible()
    page.close()
