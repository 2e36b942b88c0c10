import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from PIL import Image
from torchvision.datasets import ImageFolder

from castnet.build import build
from castnet.data.datamodule import CastingDataModule
from castnet.data.describe import describe, summary
from castnet.data.folder import ClassFolders, read_folder
from castnet.errors import UserError

CONF = str(Path(__file__).parents[2] / "conf")


def configured(root: Path, cache: Path, *overrides: str, defect_class: str = "def_front") -> CastingDataModule:
    """The data module as train.py composes it for a folder."""
    own = ["data=folder", f"data.root={root}", f"data.defect_class={defect_class}", f"paths.cache_dir={cache}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", [*own, "data.image_size=32", *overrides])
    datamodule: CastingDataModule = build("data", cfg.data, CastingDataModule)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def make_images(folder: Path, count: int, mode: str = "L") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(str(folder)))
    for i in range(count):
        pixels = random.integers(0, 256, (40 + i, 50 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")


def subsets(datamodule: CastingDataModule) -> dict[str, set[int]]:
    return {name: set(datamodule.rows[name].tolist()) for name in ("train", "val", "test")}


def test_official_test_images_stay_test_and_val_comes_out_of_train(castings: Path, tmp_path: Path) -> None:
    datamodule = configured(castings, tmp_path)
    rows, files = subsets(datamodule), datamodule.folder.files
    assert {len(rows["train"]), len(rows["val"])} == {87, 21}
    learnt = [file for file in files if file.startswith("train/")]
    assert learnt == sorted(learnt)  # a copy of the folder on another disk is divided alike
    assert {file.split("/")[0] for row, file in enumerate(files) if row in rows["test"]} == {"test"}
    assert rows["train"] | rows["val"] == {row for row, file in enumerate(files) if file.startswith("train/")}
    assert not rows["train"] & rows["val"]
    counts = summary(datamodule)["counts"]
    assert sum(counts["val"].values()) == 21
    assert subsets(configured(castings, tmp_path, "data.seed=1"))["val"] != rows["val"]


def test_any_two_classes_of_any_format_and_size_work_and_are_split_three_ways(tmp_path: Path) -> None:
    make_images(tmp_path / "parts" / "scrap", 20, "RGB")
    make_images(tmp_path / "parts" / "fine", 30, "L")
    datamodule = configured(tmp_path / "parts", tmp_path / "cache", defect_class="scrap")
    assert datamodule.folder.classes == ["fine", "scrap"]
    rows = subsets(datamodule)
    assert [len(rows[name]) for name in ("train", "val", "test")] == [32, 8, 10]
    assert len(rows["train"] | rows["val"] | rows["test"]) == 50
    assert datamodule.block.shape == (50, 64, 64)
    few = configured(tmp_path / "parts", tmp_path / "cache", "data.shots=[1,4]", defect_class="scrap")
    assert summary(few)["counts"]["train"] == {"fine": 1, "scrap": 4}  # good and defective ones, whatever their order


def test_batches_reach_the_network_as_its_input_augmented_in_training_alone(castings: Path, tmp_path: Path) -> None:
    datamodule = configured(castings, tmp_path)
    datamodule.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    pixels, labels = next(iter(datamodule.val_dataloader()))
    still, same_labels = datamodule.on_after_batch_transfer((pixels, labels), 0)
    assert still.shape == (21, 1, 32, 32)
    assert still.dtype == torch.float32
    assert 0 <= still.min() < still.max() <= 1
    assert torch.equal(same_labels, labels)

    datamodule.trainer.training = True
    moved, _ = datamodule.on_after_batch_transfer((pixels, labels), 0)
    assert (moved - still).abs().mean() > 0.02
    datamodule.trainer.validating = True
    assert torch.equal(datamodule.on_after_batch_transfer((pixels, labels), 0)[0], still)


def test_training_images_are_shuffled_and_all_come_once(castings: Path, tmp_path: Path) -> None:
    datamodule = configured(castings, tmp_path)
    torch.manual_seed(0)
    labels = torch.cat([labels for _, labels in datamodule.train_dataloader()])
    in_order = torch.from_numpy(datamodule.folder.labels[datamodule.rows["train"]])
    assert torch.equal(labels.sort().values, in_order.sort().values)
    assert not torch.equal(labels, in_order)


def test_the_real_set_has_the_published_counts(real_castings: Path, tmp_path: Path) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        overrides = ["data=casting", f"data.root={real_castings}", f"paths.cache_dir={tmp_path}", "data.image_size=22"]
        cfg = compose("train", [*overrides, "data.oversample=1"])
    datamodule = build("data", cfg.data, CastingDataModule)
    datamodule.setup()
    assert [len(datamodule.rows[name]) for name in ("train", "val", "test")] == [5307, 1326, 715]
    counts = summary(datamodule)["counts"]
    assert counts["test"] == {"def_front": 453, "ok_front": 262}
    learnt = {name: counts["train"][name] + counts["val"][name] for name in ("def_front", "ok_front")}
    assert learnt == {"def_front": 3758 - 16, "ok_front": 2875 + 16}


def write_table(path: Path, files: list[str], **columns: list[object]) -> Path:
    rows = zip(files, *columns.values(), strict=True)
    path.write_text("\n".join(",".join(map(str, row)) for row in [("file", *columns), *rows]) + "\n")
    return path


def test_grouped_folds_keep_every_part_on_one_side_and_validate_each_image_once(castings: Path, tmp_path: Path) -> None:
    files = configured(castings, tmp_path).folder.files
    parts = [row // 3 for row in range(len(files))]
    table = write_table(tmp_path / "groups.csv", files, group=list(parts))
    validated: list[int] = []
    for fold in range(5):
        overrides = ["data.split=grouped", f"data.groups={table}", f"data.fold={fold}"]
        rows = subsets(configured(castings, tmp_path, *overrides))
        assert not {parts[row] for row in rows["train"]} & {parts[row] for row in rows["val"]}
        validated += rows["val"]
    assert sorted(validated) == [row for row, file in enumerate(files) if file.startswith("train/")]


def test_too_few_parts_to_hold_some_out_are_counted_as_parts(castings: Path, tmp_path: Path) -> None:
    files = configured(castings, tmp_path).folder.files
    table = write_table(tmp_path / "groups.csv", files, group=[file.split("/")[1] for file in files])
    said = (
        r"that share of 1 parts of def_front/, 1 parts of ok_front/ cannot be held out, too few of a class; add parts"
    )
    with pytest.raises(UserError, match=said):
        configured(castings, tmp_path, "data.split=grouped", f"data.groups={table}")


def by_threes(castings: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """A table in which three images of a class, from whatever folder, show one part, and the part of each image."""
    files = sorted(path.relative_to(castings).as_posix() for path in castings.rglob("*.jpeg"))
    of_class: dict[str, int] = {"def_front": 0, "ok_front": 0}
    parts = []
    for file in files:
        name = file.split("/")[1]
        parts.append(f"{name} {of_class[name] // 3}")
        of_class[name] += 1
    return parts, write_table(tmp_path / "threes.csv", files, group=list(parts))


def test_new_parts_tests_every_image_once_by_part_whatever_its_folder(castings: Path, tmp_path: Path) -> None:
    parts, table = by_threes(castings, tmp_path)
    tested: list[int] = []
    for fold in range(5):
        overrides = ["data.split=new_parts", f"data.groups={table}", f"data.fold={fold}"]
        datamodule = configured(castings, tmp_path, *overrides)
        rows = subsets(datamodule)
        of = {name: {part for row in rows[name] for part in [datamodule.groups[row]]} for name in rows}
        assert not of["train"] & of["val"]
        assert not (of["train"] | of["val"]) & of["test"]
        assert len(rows["train"]) + len(rows["val"]) + len(rows["test"]) == len(parts)
        tested += rows["test"]
    assert sorted(tested) == list(range(len(parts)))


def test_without_known_parts_every_image_is_a_new_part(castings: Path, tmp_path: Path) -> None:
    rows = subsets(configured(castings, tmp_path, "data.split=new_parts", "data.fold=3"))
    assert [len(rows[name]) for name in ("train", "val", "test")] == [76, 20, 24]


def test_shots_are_learnt_from_and_all_other_parts_are_tested(castings: Path, tmp_path: Path) -> None:
    parts, table = by_threes(castings, tmp_path)
    datamodule = configured(castings, tmp_path, "data.shots=[1,4]", f"data.groups={table}")
    rows, labels = subsets(datamodule), datamodule.folder.labels
    counts = [len({datamodule.groups[row] for row in rows["train"] if labels[row] == label}) for label in (0, 1)]
    assert counts == [4, 1]
    assert rows["val"] == rows["train"]
    assert len(rows["train"] | rows["test"]) == len(parts)
    assert not {datamodule.groups[row] for row in rows["train"]} & {datamodule.groups[row] for row in rows["test"]}


def test_where_castnet_draws_the_test_images_a_corrected_label_counts_in_tests_too(
    castings: Path, tmp_path: Path
) -> None:
    file = next(file for file in configured(castings, tmp_path).folder.files if "def_front" in file)
    overrides = ["data.split=new_parts", f"+data.corrections.ok_front=[{file}]"]
    for fold in range(5):
        datamodule = configured(castings, tmp_path, *overrides, f"data.fold={fold}")
        assert datamodule.folder.labels[datamodule.folder.files.index(file)] == 1
    plain = configured(castings / "train", tmp_path)
    tested = next(plain.folder.files[row] for row in plain.rows["test"] if plain.folder.labels[row] == 0)
    corrected = configured(castings / "train", tmp_path, f"+data.corrections.ok_front=[{tested}]")
    assert corrected.folder.labels[corrected.folder.files.index(tested)] == 1
    assert "1 of them under a corrected label" in describe(corrected)
    assert subsets(corrected) == subsets(plain)  # so that earlier checkpoints are judged by what they did not learn


def test_an_epoch_of_a_small_folder_goes_through_it_several_times(castings: Path, tmp_path: Path) -> None:
    datamodule = configured(castings, tmp_path, "data.epoch_images=200")
    labels = torch.cat([labels for _, labels in datamodule.train_dataloader()])
    learnt = datamodule.folder.labels[datamodule.rows["train"]]
    assert len(labels) == 200
    assert 2 * (learnt == 1).sum() <= (labels == 1).sum() <= 3 * (learnt == 1).sum()
    assert (
        sum(len(labels) for _, labels in configured(castings, tmp_path, "data.epoch_images=9").train_dataloader()) == 87
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.split=new_parts", "data.test_fraction=0.01"],
            r"parts; 100 folds for tests",
        ),
        (["data.split=new_parts", "data.fold=5"], r"makes 5 folds, 0 to 4"),
        (["data.shots=[1]"], r"data\.shots=\[1\]: "),
        (["data.shots=[0,4]"], r"data\.shots\.0=0: "),
        (["data.shots=[4,500]"], r"data\.shots=\[4,500\]: asks for 500 parts of a class that has \d+"),
        (["data.shots=[4,4]", "data.assignment=some.csv"], r"data\.assignment=some\.csv: decides every subset"),
        (["data.epoch_images=0"], r"data\.epoch_images=0: "),
    ],
)
def test_more_parts_than_there_are_is_refused(
    castings: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=message):
        configured(castings, cache, *overrides)
    assert not cache.exists()  # before time is spent on decoding


@pytest.mark.parametrize("parts", [6, 7])
def test_every_fold_can_spare_parts_for_validation_or_the_first_is_refused(tmp_path: Path, parts: int) -> None:
    for name, number in (("bad", parts), ("good", 20)):
        make_images(tmp_path / "set" / name, number)
    settings = ["data.split=new_parts", "data.augmentation=null"]
    for fold in range(5):
        with pytest.raises(UserError, match=r"bad/ shows 6 parts; .* need 7 of each") if parts == 6 else nullcontext():
            configured(tmp_path / "set", tmp_path / "cache", *settings, f"data.fold={fold}", defect_class="bad")


def test_images_and_classes_are_those_of_torchvisions_image_folder(castings: Path, tmp_path: Path) -> None:
    listed, theirs = ClassFolders(castings / "train", {}), ImageFolder(castings / "train")
    assert (listed.classes, listed.class_to_idx) == (theirs.classes, theirs.class_to_idx)
    assert (listed.samples, listed.targets) == (theirs.samples, theirs.targets)
    image, label = listed[0]
    assert (image.shape, image.dtype, label) == ((300, 300), np.uint8, 0)
    folder = read_folder(castings, "def_front")
    assert folder.is_test is not None
    assert [str(folder.root / file) for file in folder.files[: len(theirs)]] == [path for path, _ in theirs.samples]


def test_files_that_are_no_images_by_their_names_are_counted(castings: Path, tmp_path: Path) -> None:
    shutil.copytree(castings, tmp_path / "mixed")
    assert "Not looked at" not in describe(configured(tmp_path / "mixed", tmp_path))
    for name in ("a.GIF", "b.gif", "c", ".hidden.gif"):
        (tmp_path / "mixed" / "train" / "ok_front" / name).touch()
    told = describe(configured(tmp_path / "mixed", tmp_path))
    assert "names do not end as those of images do (2 .gif, 1 without ending)." in told


def test_a_class_that_only_looks_as_it_was_written_is_told(tmp_path: Path) -> None:
    for name in ("scha\u0308den", "gut"):
        make_images(tmp_path / "parts" / name, 8)
    with pytest.raises(UserError, match="one looks like sch\u00e4den and has other Unicode characters"):
        configured(tmp_path / "parts", tmp_path, defect_class="'sch\u00e4den'")


def test_a_folder_of_images_that_is_not_used_is_named(castings: Path, tmp_path: Path) -> None:
    root = shutil.copytree(castings, tmp_path / "castings")
    shutil.copytree(root / "test", root / "val")
    described = describe(configured(root, tmp_path / "cache"))
    assert "Not used: val/ beside train/, of which validation takes its share, and test/." in described
    assert "Not used" not in describe(configured(castings, tmp_path / "cache"))


@pytest.mark.parametrize("asked", ["data.split=new_parts", "data.shots=[2,2]"])
def test_a_part_in_both_classes_is_refused_by_name(castings: Path, tmp_path: Path, asked: str) -> None:
    files = sorted(path.relative_to(castings).as_posix() for path in castings.rglob("*.jpeg"))
    twins = [next(file for file in files if name in file) for name in ("def_front", "ok_front")]
    table = write_table(tmp_path / "groups.csv", files, group=["twin" if file in twins else file for file in files])
    with pytest.raises(UserError, match=rf"data\.groups=\S+: {twins[0]} and {twins[1]} show one part, yet lie in two"):
        configured(castings, tmp_path / "cache", asked, f"data.groups={table}")
    assert not (tmp_path / "cache").exists()


def test_test_images_of_parts_seen_in_training_are_told_apart(castings: Path, tmp_path: Path) -> None:
    assert not configured(castings, tmp_path).test_slices()
    files = configured(castings, tmp_path).folder.files
    test_files = [file for file in files if file.startswith("test/")]
    twins = {test_files[2]: files[0], test_files[7]: files[50]}
    table = write_table(tmp_path / "groups.csv", files, group=[twins.get(file, file) for file in files])
    unseen = configured(castings, tmp_path, f"data.groups={table}").test_slices()["parts never seen in training"]
    assert np.flatnonzero(~unseen).tolist() == [2, 7]
    told = describe(configured(castings, tmp_path, f"data.groups={table}"))
    assert "2 of 12 test images show parts that are learnt from" in told
    assert "are learnt from" not in describe(configured(castings, tmp_path))


def test_corrected_labels_are_learnt_and_validated_by_but_not_tested_by(castings: Path, tmp_path: Path) -> None:
    plain = configured(castings, tmp_path)
    chosen = [plain.rows[subset][0] for subset in ("train", "val", "test")]
    other = [plain.folder.classes[1 - label] for label in plain.folder.labels[chosen]]
    overrides = []
    for name in set(other):
        files = [plain.folder.files[row] for row, to in zip(chosen, other, strict=True) if to == name]
        overrides.append(f"+data.corrections.{name}=[{','.join(files)}]")
    corrected = configured(castings, tmp_path, *overrides)
    assert subsets(corrected) == subsets(plain)
    assert np.flatnonzero(corrected.folder.labels != plain.folder.labels).tolist() == sorted(chosen[:2])
    assert corrected.learnt != plain.learnt  # so that no run goes on with other labels than it was begun with
    told = describe(corrected)
    assert "2 of them under a corrected label" in told
    assert "data.corrections: 1 of 3 are of test images, which keep the class of their folder." in told
    mistyped = configured(castings, tmp_path, *overrides, "+data.corrections.ok_front=[ok_front/nowhere.jpeg]")
    assert "are of no image in this folder, such as ok_front/nowhere.jpeg" in describe(mistyped)
    with pytest.raises(UserError, match=r"data\.corrections\.good: no such class .* def_front/, ok_front/"):
        configured(castings, tmp_path, "+data.corrections.good=[train/def_front/0.jpeg]")
    both = [f"+data.corrections.{name}=[train/def_front/0.jpeg]" for name in plain.folder.classes]
    with pytest.raises(UserError, match=r"data\.corrections: names train/def_front/0\.jpeg for two classes"):
        configured(castings, tmp_path, *both)


def test_slices_are_file_patterns_or_the_values_of_a_tables_column(castings: Path, tmp_path: Path) -> None:
    files = configured(castings, tmp_path).folder.files
    test_files = [file for file in files if file.startswith("test/")]
    table = write_table(tmp_path / "light.csv", files, lamp=["new" if "7.jpeg" in file else "old" for file in files])
    slices = ["+data.slices.good=*/ok_front/*", f"+data.slices.lamp='{table}:lamp'"]
    found = configured(castings, tmp_path, *slices).test_slices()
    assert set(found) == {"good", "lamp: new", "lamp: old"}
    assert found["good"].tolist() == ["ok_front" in file for file in test_files]
    assert found["lamp: new"].tolist() == ["7.jpeg" in file for file in test_files]
    assert "data.slices" not in describe(configured(castings, tmp_path, *slices))
    learnt = describe(configured(castings, tmp_path, "+data.slices.learnt='train/*'"))
    assert "data.slices: of learnt no image is tested" in learnt
    for rule in ("*/x_*", str(table)):
        message = rf"data\.slices\.none={re.escape(rule)}: matches no image.* TABLE\.csv:COLUMN"
        with pytest.raises(UserError, match=message):
            configured(castings, tmp_path, f"+data.slices.none='{rule}'")


def test_an_assignment_decides_every_images_subset(castings: Path, tmp_path: Path) -> None:
    files = configured(castings, tmp_path).folder.files
    names = [("train", "train", "val", "test")[row % 4] for row in range(len(files))]
    table = write_table(tmp_path / "clean.csv", files[::-1], split=names[::-1])
    rows = subsets(configured(castings, tmp_path, f"data.assignment={table}"))
    assert rows == {name: {row for row, of in enumerate(names) if of == name} for name in ("train", "val", "test")}
    write_table(table, files, split=["train" if name == "val" else name for name in names])
    with pytest.raises(UserError, match=r"expected the subsets train, val and test, found \['test', 'train'\]"):
        configured(castings, tmp_path, f"data.assignment={table}")
    write_table(table, files, split=["trian", *names[1:]])
    with pytest.raises(UserError, match=r"found \['test', 'train', 'trian', 'val'\]"):
        configured(castings, tmp_path, f"data.assignment={table}")


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        ("groups", "file,part\na,1\n", r"data\.groups=\S+: has no column group"),
        (
            "groups",
            "file,group\na,1\n",
            r"data\.groups=\S+: lacks train/def_front/\S+ \(120 of 120 files missing\).* such as a$",
        ),
        ("assignment", None, r"data\.assignment=\S+: no such file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    castings: Path, tmp_path: Path, setting: str, text: str | None, message: str
) -> None:
    if text:
        (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        configured(castings, tmp_path / "cache", f"data.{setting}={tmp_path / 'table.csv'}")


def break_folder(root: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(root)
    elif how == "empty":
        shutil.rmtree(root)
        root.mkdir()
    elif how == "one class":
        shutil.rmtree(root / "train" / "ok_front")
    elif how == "three classes":
        (root / "train" / "unsure").mkdir()
    elif how == "class without images":
        for image in (root / "test" / "ok_front").iterdir():
            image.unlink()
    elif how == "no test":
        shutil.rmtree(root / "test")
    elif how == "test is train":
        shutil.rmtree(root / "test")
        (root / "test").symlink_to(root / "train")
    elif how == "test has train's classes":
        for name in ("def_front", "ok_front"):
            shutil.rmtree(root / "test" / name)
            (root / "test" / name).symlink_to(root / "train" / name)
    elif how == "a class in the other":
        (root / "train" / "ok_front" / "more").symlink_to(root / "train" / "def_front")
    elif how == "a class is the other":
        shutil.rmtree(root / "train" / "ok_front")
        (root / "train" / "ok_front").symlink_to("def_front")
    elif how == "capital letters":
        (root / "train").rename(root / "Train")
        (root / "test").rename(root / "Test")
    elif how == "other classes in test":
        (root / "test" / "ok_front").rename(root / "test" / "good")
    elif how == "truncated image":
        image = next(iter((root / "train" / "def_front").iterdir()))
        image.write_bytes(image.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"data\.root=\S+: no such folder"),
        ("empty", r"expected two class folders.*found none"),
        ("one class", r"train: expected two class folders.*found def_front/; add the other"),
        ("three classes", r"train: expected two class folders.*found def_front/, ok_front/, unsure/"),
        ("class without images", r"test: a class folder has no images.*ok_front"),
        ("no test", r"has train/ and no test/; expected both"),
        ("test is train", r"broken/train/def_front and \S+broken/test/def_front are one folder"),
        ("test has train's classes", r"broken/train/def_front and \S+broken/test/def_front are one folder"),
        ("a class in the other", r"train/def_front and \S+train/ok_front/more are one folder.*remove the link"),
        ("a class is the other", r"train/def_front and \S+train/ok_front are one folder"),
        ("capital letters", r"Test: would be taken for a class; rename it to test/"),
        ("other classes in test", r"train/ has the classes .* but test/ has"),
        ("truncated image", r"train/def_front/\S+: cannot be read as an image.*castnet audit"),
    ],
)
def test_a_folder_that_is_not_as_expected_is_refused_by_name(
    castings: Path, tmp_path: Path, how: str, message: str
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(castings, root)
    break_folder(root, how)
    with pytest.raises(UserError, match=message):
        configured(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.defect_class=scratch", r"data\.defect_class=scratch: no such class folder.*def_front/, ok_front/"),
        ("data.val_fraction=1.5", r"data\.val_fraction=1\.5: expected less than 1"),
        (
            "data.val_fraction=0.001",
            r"that share of \d+ images of def_front/, .* cannot be held out, too few of a class; add images",
        ),
        ("data.split=random", r"data\.split=random: expected 'stratified', 'first_of_class', 'grouped' or 'new_parts'"),
        ("data.split=grouped", r"data\.split=grouped: needs data\.groups"),
        (
            "data.split=grouped data.groups=t data.assignment=t",
            r"data\.assignment=t: .* and so does data\.split",
        ),
        ("data.split=grouped data.groups=t data.shots=[2,2]", r"data\.shots=\[2, 2\]: .* no data\.split=grouped"),
        ("data.whole_parts=true", r"data\.whole_parts=true: needs data\.groups"),
        ("data.whole_parts=true data.groups=t data.epoch_images=9", r"data\.epoch_images: does not count where"),
        ("data.split=new_parts data.test_fraction=0.7", r"data\.test_fraction=0\.7: .* expected at most 0\.6"),
        ("data.assignment=none.csv", r"data\.assignment=none\.csv: no such file; `castnet resplit"),
        ("data.resample=cubic", r"data\.resample=cubic: expected 'area' or 'nearest'"),
        ("data.source=web", r"data\.source=web: expected 'generated', 'casting' or 'folder'"),
        ("data.batch_size=0", r"data\.batch_size=0: expected greater than or equal to 1"),
        ("data.batch_size=many", r"data\.batch_size=many: expected a valid integer"),
        ("data.augmentation.rotation=far", r"data\.augmentation\.rotation=far: expected a valid number"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(castings: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(castings, tmp_path, *override.split())


def test_a_missing_set_is_never_replaced_by_another(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"defect_class": "bad"}
    with pytest.raises(UserError, match="no such folder"):
        configured(tmp_path / "nowhere", tmp_path, **settings)
