"""The audit finds every kind of copy, merges nothing else, and says what is wrong with a folder."""

import csv
import json
import re
import shutil
from base64 import b64decode
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.audit import disguised, draw_series, plant, precision_recall
from castnet.audit import resplit as resplit_module
from castnet.audit.audit import audit
from castnet.audit.duplicates import NOTHING, candidates, find_copies, grouped, likenesses
from castnet.audit.findings import Audit
from castnet.audit.listing import list_folder
from castnet.audit.resplit import resplit
from castnet.audit.spectra import Spectra, agree_everywhere, align
from castnet.audit.unwrap import FREQUENCIES
from castnet.errors import UserError
from castnet.files import hold
from castnet.imaging.decode import decode
from castnet.imaging.listing import list_images
from tests.conftest import castnet_here


@pytest.fixture(scope="module")
def planted(castings: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Audit, dict[str, str]]:
    """Castings with 30 disguised copies in test/ and one of every other flaw: root, out, audit, copies' origins."""
    root = tmp_path_factory.mktemp("audit") / "castings"
    shutil.copytree(castings, root)
    origins = plant(root, 30, seed=5)  # of which every one is found: docs/audit.md says how many are
    first, second, third = sorted((root / "train/def_front").glob("*.jpeg"))[:3]
    shutil.copy(first, root / "test/def_front/identical.jpeg")
    copy = root / "train/ok_front/relabelled.jpeg"
    copy.write_bytes(disguised(decode(second), np.random.default_rng(1)))
    (root / "train/ok_front/torn.jpeg").write_bytes(third.read_bytes()[:2000])
    (root / "train/ok_front/empty.png").write_bytes(b"")
    large = Image.fromarray(decode(sorted((root / "train/ok_front").glob("casting_*.jpeg"))[0])).resize((640, 640))
    large.save(root / "train/ok_front/large.png")
    Image.new("L", (300, 300), 250).save(root / "train/ok_front/blank.png")
    (root / "train/ok_front/moving.gif").touch()
    return root, root.parent / "out", audit(root, root.parent / "out", progress=False), origins


def read_groups(out: Path) -> dict[str, str]:
    with (out / "groups.csv").open(newline="") as file:
        return {row["file"]: row["group"] for row in csv.DictReader(file)}


def test_disguised_copies_are_found_and_different_parts_stay_apart(planted) -> None:
    _, out, result, origins = planted
    extra = {
        "test/def_front/identical.jpeg": result.identical[0][0],
        "train/ok_front/relabelled.jpeg": result.two_labels[0]["def_front"][0],
    }
    group = read_groups(out)
    assert list(dict.fromkeys(group.values())) == [str(number) for number in range(len(set(group.values())))]
    large = next(file for file in group if group[file] == group["train/ok_front/large.png"] and "casting" in file)
    precision, recall, found = precision_recall(
        out / "groups.csv", origins | extra | {"train/ok_front/large.png": large}
    )
    assert (precision, recall) == (1, 1)
    assert found >= len(origins) + 3


# A shadow or groove beside the opening is apt to be taken for its edge in some of these.
@pytest.mark.parametrize("seed", [2, 6, 7])
def test_one_lamp_does_not_make_one_photograph(tmp_path: Path, seed: int) -> None:
    # Two moulds of eight castings each, laid down alike: shadows, reflections and vanes are the same.
    for name in ("def_front", "ok_front"):
        (tmp_path / "root/train" / name).mkdir(parents=True)
    draw_series(tmp_path / "root", 2, seed=seed)  # in which every copy is found: docs/audit.md says how many are
    origins = plant(tmp_path / "root", 24, seed=seed)
    result = audit(tmp_path / "root", tmp_path / "out", progress=False)
    assert precision_recall(tmp_path / "out/groups.csv", origins)[:2] == (1, 1)
    assert not result.two_labels


def test_leaks_name_a_copy_in_train(planted) -> None:
    _, _, result, origins = planted
    leaks = {leak.test: leak for leak in result.leaks}
    assert set(origins) <= set(leaks)
    identical = leaks["test/def_front/identical.jpeg"]
    assert identical.identical
    assert identical.train == sorted(result.identical[0])[1]
    assert result.identical_across == 1
    assert result.disjoint is False
    assert result.seen["def_front"]["same file"] == 1
    assert sum(seen["same group"] for seen in result.seen.values()) == len(leaks) == len(origins) + 1


def test_one_photograph_under_two_labels_is_reported(planted) -> None:
    root, _, result, _ = planted
    second = sorted((root / "train/def_front").glob("*.jpeg"))[1].relative_to(root).as_posix()
    assert len(result.two_labels) == 1
    assert "train/ok_front/relabelled.jpeg" in result.two_labels[0]["ok_front"]
    assert second in result.two_labels[0]["def_front"]


def test_odd_images_are_reported(planted) -> None:
    _, out, result, _ = planted
    assert set(result.unreadable) == {"train/ok_front/torn.jpeg", "train/ok_front/empty.png"}
    assert result.odd_sizes == ["train/ok_front/large.png"]
    assert result.sizes["640×640"] == 1
    assert "train/ok_front/blank.png" in result.not_located
    assert not set(result.unreadable) & set(read_groups(out))
    for told in (result.describe(), (out / "audit.html").read_text()):
        assert "names do not end as those of images do (1 .gif)" in told


def test_unusual_light_is_reported(castings: Path, tmp_path: Path) -> None:
    casting = decode(next((castings / "train/ok_front").iterdir()))
    (tmp_path / "root/ok").mkdir(parents=True)
    for percent in (30, *range(40, 60), 100):
        Image.fromarray((casting * (percent / 100)).astype(np.uint8)).save(tmp_path / f"root/ok/{percent}.png")
    result = audit(tmp_path / "root", tmp_path / "out", progress=False)
    assert result.lighting_outliers == ["ok/100.png"]


def test_counts_and_groups_cover_every_readable_image(planted) -> None:
    root, out, result, _ = planted
    files = {path.relative_to(root).as_posix() for path in root.glob("*/*/*") if path.suffix != ".gif"}
    assert set(read_groups(out)) == files - set(result.unreadable)
    assert sum(count for split in result.counts.values() for count in split.values()) == len(files) - 2
    assert len(set(read_groups(out).values())) == result.groups


def test_json_is_what_is_returned(planted) -> None:
    _, out, result, _ = planted
    assert json.loads((out / "audit.json").read_text(encoding="utf-8")) == asdict(result)


def test_page_is_self_contained(planted) -> None:
    _, out, _, _ = planted
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "torn.jpeg" in page
    assert page.count("data:image/jpeg;base64,") > 60
    assert 'src="' not in page.replace('src="data:', "")
    assert "http" not in page


def test_the_page_shows_test_images_with_a_train_image_laid_over_each_the_least_alike_first(planted) -> None:
    _, out, result, _ = planted
    page = (out / "audit.html").read_text(encoding="utf-8")
    sheet = page.split("<h2>Test images whose group is in train</h2>")[1].split("<h2>")[0]
    image = r'<img alt="" src="data:image/jpeg;base64,([^"]+)">'
    found = re.findall(image * 2 + r"\s*<figcaption>([0-9.]+)(?:, mirrored)?: (\S+) \|\s*(\S+)</figcaption>", sheet)
    assert len(found) == 18
    assert {names[3:] for names in found} <= {(of.test, of.train) for of in result.leaks if not of.identical}
    alike = [float(likeness) for _, _, likeness, *_ in found]
    assert alike == sorted(alike)
    for *both, _, _, _ in found:
        test, train = (decode(b64decode(content))[25:145, 25:145].ravel() for content in both)
        assert np.corrcoef(test, train)[0, 1] > 0.6


def test_the_page_shows_the_largest_groups_first_and_none_of_one_image(planted) -> None:
    _, out, _, _ = planted
    sheet = (out / "audit.html").read_text(encoding="utf-8").split("<h2>Largest groups</h2>")[1]
    sizes = [count for _, count in Counter(read_groups(out).values()).most_common(12) if count > 1]
    assert [int(count) for count in re.findall(r"<figcaption>(\d+) images", sheet)] == sizes


def test_generated_castings_are_disjoint(castings: Path, tmp_path: Path) -> None:
    result = audit(castings, tmp_path / "out", progress=False)
    assert result.disjoint is True
    assert result.groups == 120
    assert "120 images, no two of them copies" in result.describe()
    assert not result.leaks
    assert not result.two_labels
    assert "No round part" not in result.describe()
    page = (tmp_path / "out" / "audit.html").read_text()
    for of_what_is_there in ("a label is wrong", "All sets", "Largest groups", "Not looked at"):
        assert of_what_is_there not in page


def test_class_folders_alone_have_no_verdict(castings: Path, tmp_path: Path) -> None:
    result = audit(castings / "test", tmp_path / "out", progress=False)
    assert result.disjoint is None
    assert list(result.counts) == ["all"]
    assert not result.seen


def test_of_a_test_that_cannot_be_read_nothing_is_said(castings: Path, tmp_path: Path) -> None:
    for file in castings.glob("*/*/*1.jpeg"):
        copy = tmp_path / "set" / file.relative_to(castings)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes() if "train" in file.parts else b"torn")
    result = audit(tmp_path / "set", tmp_path / "out", progress=False)
    assert list(result.counts) == ["train"]
    assert result.unreadable
    assert result.disjoint is None


def test_where_no_round_part_is_found_groups_are_doubted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("good", "bad"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(4):
            weave = np.add.outer(np.arange(96) // 6, np.arange(96) // 6) % 2 * 100 + 60 + random.normal(0, 9, (96, 96))
            weave[:, index * 9 : index * 9 + 30] = 90  # flat, where nothing varies
            Image.fromarray(weave.astype(np.uint8)).save(tmp_path / "set" / name / f"{index}.png")
    result = audit(tmp_path / "set", tmp_path / "out", progress=False)
    assert f"No round part was found in {len(result.not_located)} of 8 images" in result.describe()
    assert result.doubt in (tmp_path / "out" / "audit.html").read_text()


def test_what_a_person_saw_to_be_one_part_is_joined(castings: Path, tmp_path: Path) -> None:
    parts = [*sorted((castings / "train" / "ok_front").iterdir())[:2], next((castings / "test" / "ok_front").iterdir())]
    train, again, test = (path.relative_to(castings).as_posix() for path in parts)
    same = tmp_path / "same.csv"
    same.write_text(f"file,same_as\n{test},{train}\n{again},{test}\n")
    assert castnet_here("audit", castings, "-o", tmp_path / "out", "--same", same) == 1
    result = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (result["groups"], result["disjoint"]) == (118, False)
    assert [(leak["test"], leak["train"]) for leak in result["leaks"]] == [(test, again)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,same_as\ntrain/gone.jpeg,train/gone.jpeg\n", "'train/gone.jpeg' is missing"),
        ("file,same_as\ntrain/gone.jpeg\n", "line 2 is cut off, without file or same_as"),
        ("a,b\n1,2\n", "'file'"),
        ("a,b\n", "'file'"),
        ("", "'file'"),
    ],
)
def test_pairs_of_unknown_files_are_refused(text: str, message: str, castings: Path, tmp_path: Path) -> None:
    same = tmp_path / "same.csv"
    same.write_text(text)
    with pytest.raises(UserError, match=rf"same\.csv: {message}"):
        audit(castings, tmp_path / "out", same, progress=False)
    assert not (tmp_path / "out").exists()


def test_the_exit_code_says_whether_train_and_test_are_disjoint(planted, castings, tmp_path, capsys) -> None:
    root, _, _, origins = planted
    assert castnet_here("audit", root, "--out", tmp_path / "broken") == 2
    printed = capsys.readouterr().out
    assert f"Test images whose group is in train: {len(origins) + 1}." in printed
    assert "train/ok_front/torn.jpeg: cannot be read as an image (image file is truncated" in printed
    shutil.copytree(root, tmp_path / "whole", ignore=shutil.ignore_patterns("torn.jpeg", "empty.png"))
    assert castnet_here("audit", tmp_path / "whole", "--out", tmp_path / "leaky") == 1
    assert f"Test images whose group is in train: {len(origins) + 1}." in capsys.readouterr().out
    assert castnet_here("audit", castings, "--out", tmp_path / "clean") == 0
    assert "Train and test are disjoint" in capsys.readouterr().out
    assert castnet_here("audit", tmp_path / "absent") == 2
    assert "absent: no such folder" in capsys.readouterr().err


def test_chains_are_cut() -> None:
    # Spectra that fade from one corner to the next: each is like its neighbours, the corners are not alike.
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(4, 64, 86, 2)).astype(np.float32).view(np.complex64)[..., 0]
    fade = np.linspace(0, np.pi / 2, 9, endpoint=False, dtype=np.float32)[:, None, None]
    chain = np.concatenate([np.cos(fade) * one + np.sin(fade) * next_ for one, next_ in pairwise(corners)])
    n = len(chain)
    spectra = Spectra(n)
    spectra[np.arange(n)] = chain
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    likeness = likenesses(spectra, pairs)
    assert (likeness > 0.9).all()
    group = grouped(spectra, pairs, likeness, NOTHING)
    assert 2 <= len(np.unique(group)) <= 4
    assert group[0] != group[-1]
    assert (likenesses(spectra, np.stack([np.arange(n), group], axis=1)) >= 0.4).all()


def test_a_photograph_of_more_copies_than_are_compared_with_each_is_one_group() -> None:
    random = np.random.default_rng(0)

    def drawn(n: int) -> NDArray[np.complex64]:
        return random.normal(size=(n, 64, 86, 2)).astype(np.float32).view(np.complex64)[..., 0]

    # Three ways to save it, and the nearest of each copy were saved as it was.
    saved = np.repeat(drawn(1) + drawn(3) / 3, 20, axis=0) + drawn(60) / 100
    spectra = Spectra(100)
    spectra[np.arange(100)] = np.concatenate([saved, drawn(40)])
    group, _ = find_copies(spectra, closest=5)
    assert [len(np.unique(some)) for some in (group[:60], group[60:])] == [1, 40]


def test_what_agrees_over_half_of_the_circle_is_no_copy() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 64, 512))
    half = np.where(np.arange(512) < 300, one, other)
    a, b = (np.fft.rfft(polar, axis=1)[None, :, FREQUENCIES].astype(np.complex64) for polar in (one, half))
    assert align(a, b)[0] > 0.4  # as those of copies are
    assert agree_everywhere(a, a, NOTHING).all()
    assert not agree_everywhere(a, b, NOTHING).any()


def test_what_few_images_have_in_common_is_theirs() -> None:
    drawn = np.random.default_rng(0).normal(size=(61, 64, 86, 2)).astype(np.float32).view(np.complex64)[..., 0]
    for alike, components in ((12, 0), (30, 1)):
        images = drawn[1:].copy()
        images[:alike] += 2 * drawn[0]
        spectra = Spectra(60)
        spectra[np.arange(60)] = images
        spectra.whiten()
        assert len(spectra.shared(np.arange(60))) == components


@pytest.mark.parametrize("lamps", [1, 3])
def test_what_many_castings_share_makes_no_copies(lamps: int) -> None:
    random = np.random.default_rng(0)
    drawn = random.normal(size=(90 + lamps, 64, 86, 2)).astype(np.float32).view(np.complex64)[..., 0]
    much = np.linspace(1, 1.8, 90, dtype=np.float32)[:, None, None]
    castings = np.tile(drawn[:lamps], (90 // lamps, 1, 1)) + much * drawn[lamps:]
    angles = np.arange(1, 6)[:, None, None]
    turned = np.exp(1j * np.arange(FREQUENCIES.start, FREQUENCIES.stop) * angles).astype(np.complex64)
    images = np.concatenate([castings, castings[:5] * turned])
    spectra = Spectra(len(images))
    spectra[np.arange(len(images))] = images
    group, closest = find_copies(spectra, closest=5)
    alike = [pair.likeness for pair in closest]
    assert alike == sorted(alike, reverse=True)
    assert (likenesses(spectra, np.array([[5, 5 + lamps], [7, 7 + lamps]])) > 0.4).all()  # as those of copies are
    assert group[90:].tolist() == group[:5].tolist()
    assert len(np.unique(group)) == 90


def test_candidates_are_few() -> None:
    rng = np.random.default_rng(0)
    spectra = Spectra(200)
    spectra[np.arange(200)] = rng.normal(size=(200, 64, 86, 2)).astype(np.float32).view(np.complex64)[..., 0]
    pairs = candidates(spectra)
    assert len(pairs) <= 16 * 200
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_two_audits_do_not_write_one_report(castings: Path, tmp_path: Path) -> None:
    with hold(tmp_path / "out"), pytest.raises(UserError, match="out: another run is at work there"):
        audit(castings, tmp_path / "out", progress=False)


def test_two_splits_do_not_write_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{'ok' if group % 2 else 'def'}/{group}.png,{group}" for group in range(60)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    draw = resplit_module._draw

    def meanwhile(*arguments: Any) -> Any:
        (tmp_path / "split.csv").write_text("another's")
        return draw(*arguments)

    monkeypatch.setattr(resplit_module, "_draw", meanwhile)
    with pytest.raises(UserError, match=r"split\.csv exists already"):
        resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    assert (tmp_path / "split.csv").read_text() == "another's"


@pytest.mark.parametrize("sizes", [[500, *[1] * 30], [900, 1, 1], [400, 5, 5, 5]])
def test_where_one_group_is_most_of_a_class_each_subset_has_one_all_the_same(tmp_path: Path, sizes: list[int]) -> None:
    images = [f"def/{group}_{copy}.png,{group}" for group, size in enumerate(sizes) for copy in range(size)]
    images += [f"ok/{number}.png,ok{number}" for number in range(60)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *images]))
    resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        subsets = {(row["file"].split("/")[0], row["split"]) for row in csv.DictReader(file)}
    assert len(subsets) == 6


def test_of_a_few_large_groups_one_is_held_out(tmp_path: Path) -> None:
    rows = [
        f"{name}/{group}_{copy}.png,{name}{group}" for name in ("ok", "def") for group in range(6) for copy in (0, 1)
    ]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        splits = dict(sorted((row["group"], row["split"]) for row in csv.DictReader(file)))
    for name in ("ok", "def"):
        assert sorted(splits[f"{name}{group}"] for group in range(6)) == ["test", *["train"] * 4, "val"]
    assert castnet_here("resplit", tmp_path / "groups.csv", tmp_path / "other.csv", "--seed", 1) == 0
    assert (tmp_path / "other.csv").read_text() != (tmp_path / "split.csv").read_text()


def test_of_shares_that_are_near_enough_the_one_of_more_groups_is_held_out(tmp_path: Path) -> None:
    """A tenth of 200 images is just the large group, and yet it is one photograph."""
    sizes = [20, *[3] * 60]
    rows = [
        f"{name}/{group}_{copy}.png,{name}{group}"
        for name in ("ok", "def")
        for group, size in enumerate(sizes)
        for copy in range(size)
    ]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        tested = {row["group"] for row in csv.DictReader(file) if row["split"] == "test"}
    for name in ("ok", "def"):
        assert sum(group.startswith(name) for group in tested) in (6, 7)


def test_two_groups_whose_numbers_are_spelt_differently_stay_two(tmp_path: Path) -> None:
    numbers = [f"{zeros}{number}" for number in range(30) for zeros in ("", "0")]
    rows = [f"{name}/{number}.png,{number}" for number in numbers for name in (["ok", "def"][int(number) % 2],)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    resplit(tmp_path / "groups.csv", tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        assert [row["group"] for row in csv.DictReader(file)] == numbers


def test_an_audit_does_not_become_a_class_of_the_folder(
    castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(castings / "test", tmp_path / "set")
    monkeypatch.chdir(root)
    assert castnet_here("audit", ".") == 2
    assert "error: --out audit: lies in the audited folder" in capsys.readouterr().err
    assert not (root / "audit").exists()


def test_nothing_is_overwritten(castings: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("mine")
    with pytest.raises(UserError, match=r"groups\.csv exists"):
        audit(castings, tmp_path, progress=False)
    assert (tmp_path / "groups.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: root.mkdir(), lambda root: (root / "a").mkdir(parents=True)]
)
def test_without_images_the_root_is_named(make, tmp_path: Path) -> None:
    make(tmp_path / "root")
    with pytest.raises(UserError, match="root: no"):
        audit(tmp_path / "root", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_images_beside_the_class_folders_are_named_and_hidden_ones_left_out(castings: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(castings / "test", root)
    one = next((root / "ok_front").iterdir())
    (root / ".trash").mkdir()
    for copy in (root / "astray.jpeg", root / ".trash" / "old.jpeg", root / ".hidden.jpeg"):
        shutil.copy(one, copy)
    listing = list_folder(root)
    assert set(listing.classes) == {"def_front", "ok_front"}
    assert listing.unreadable == {"astray.jpeg": "lies in no class folder"}


def test_images_beside_train_and_test_are_named(castings: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("train", "test", "val"):
        shutil.copytree(castings / "test", root / name)
    (root / "notes").mkdir()
    count = len(list_images(root / "val").images)
    assert list_folder(root).unreadable == {"val": f"{count} images lie in neither train/ nor test/"}


def test_a_train_folder_that_is_empty_is_no_folder_without_one(castings: Path, tmp_path: Path) -> None:
    shutil.copytree(castings / "test", tmp_path / "test")
    (tmp_path / "train").mkdir()
    assert list_folder(tmp_path).unreadable == {"train": "has no class folders"}


def test_train_and_test_in_capital_letters_are_not_audited_as_classes(castings: Path, tmp_path: Path) -> None:
    shutil.copytree(castings / "test", tmp_path / "TRAIN")
    with pytest.raises(UserError, match="TRAIN: would be taken for a class; rename it to train/"):
        audit(tmp_path, tmp_path / "out", progress=False)


def test_a_folder_of_unreadable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root/ok").mkdir(parents=True)
    (tmp_path / "root/ok/a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of its 1 images"):
        audit(tmp_path / "root", tmp_path / "out", progress=False)


@pytest.mark.filterwarnings("error")
def test_flat_and_thin_images_are_audited(tmp_path: Path) -> None:
    (tmp_path / "root/ok").mkdir(parents=True)
    for index, size in enumerate([(4000, 1), (1, 4000), (1, 1), (64, 64)]):
        Image.new("L", size, index).save(tmp_path / f"root/ok/{index}.png")
    shutil.copy(tmp_path / "root/ok/3.png", tmp_path / "root/ok/copy.png")
    result = audit(tmp_path / "root", tmp_path / "out", progress=False)
    assert (result.groups, result.unreadable, len(result.not_located)) == (4, {}, 5)


def test_resplit_keeps_groups_together_and_classes_in_proportion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"train/{'ok' if group % 2 else 'def'}/{group}_{i}.png", group)
        for group in range(100)
        for i in range(rng.integers(1, 9))
    ]
    rows.append(("train/ok/9_relabelled.png", 9 - 1))
    with (tmp_path / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "group"), *rows])
    for name in ("once.csv", "again.csv"):
        resplit(tmp_path / "groups.csv", tmp_path / name, seed=3)
    assert (tmp_path / "once.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    with (tmp_path / "once.csv").open(newline="") as file:
        split = list(csv.DictReader(file))
    assert [(row["file"], int(row["group"])) for row in split] == rows
    assert len({(row["group"], row["split"]) for row in split}) == 100
    assert {row["split"] for row in split if row["group"] == "8"} == {"train"}
    for label in ("ok", "def"):
        of_class = [row["split"] for row in split if row["file"].split("/")[1] == label]
        for name, share in (("train", 0.72), ("val", 0.18), ("test", 0.10)):
            assert abs(of_class.count(name) / len(of_class) - share) < 0.05
    with pytest.raises(UserError, match="exists"):
        resplit(tmp_path / "groups.csv", tmp_path / "once.csv")
    with pytest.raises(UserError, match="--seed -4: expected 0 or more"):
        resplit(tmp_path / "groups.csv", tmp_path / "other.csv", seed=-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,part\na/x.png,1\n", "no column file and group"),
        ("", "no column file and group"),
        ("file,group\ntrain/x.png,1\n", "train/x.png lies in no class folder"),
        ("file,group\na/x.png,7\na/x.png,8\n", "a/x.png twice, with group 7 and 8"),
        ("file,group\n", "no images"),
        ("file,group\na/x.png,0\nb/y.png,1\n", "too few"),
    ],
)
def test_resplit_names_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        resplit(tmp_path / "groups.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_identical_pairs_of_the_real_castings(real_castings: Path, tmp_path: Path) -> None:
    # Only test/ok_front and its namesakes in train: 64 of them are the same files.
    for file in sorted((real_castings / "test/ok_front").iterdir()):
        for split in ("train", "test"):
            (tmp_path / "root" / split / "ok_front").mkdir(parents=True, exist_ok=True)
            if (real_castings / split / "ok_front" / file.name).exists():
                (tmp_path / "root" / split / "ok_front" / file.name).symlink_to(
                    real_castings / split / "ok_front" / file.name
                )
    result = audit(tmp_path / "root", tmp_path / "out", progress=False)
    assert result.identical_across == 64
    assert result.seen["ok_front"]["same file"] == 64
