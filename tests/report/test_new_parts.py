import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import train
from castnet import entry
from castnet.errors import UserError
from castnet.report import figures
from castnet.report.callbacks import LIMITED
from castnet.report.interval import rate_interval
from castnet.report.new_parts import Examination, NewPartsReport, Pooled, pool
from tests.conftest import Command


def pooled(margins: list[float], defective: list[bool], parts: list[int]) -> Pooled:
    files = [f"{'bad' if bad else 'good'}/{row}.png" for row, bad in enumerate(defective)]
    labels = ["bad" if bad else "good" for bad in defective]
    return Pooled(files, labels, np.array(defective), np.array(parts), np.array(margins), parts_known=True)


def test_rates_count_images_and_by_part_the_mean_of_the_copies() -> None:
    judged = pooled([3, 2, -1, 1, -2, 1, -5, -6], [True] * 4 + [False] * 4, [0, 0, 0, 1, 2, 2, 3, 3])
    images, parts = judged.numbers(), judged.by_part.numbers()
    assert (images["escape_rate"], images["overkill_rate"]) == (0.25, 0.25)
    assert images["auroc"] == pytest.approx(14.5 / 16)  # one pair wrong, one tied
    assert (parts["images"], parts["escape_rate"], parts["overkill_rate"], parts["auroc"]) == (4, 0, 0, 1)
    assert judged.by_part.files == ["bad/2.png", "bad/3.png", "good/5.png", "good/6.png"]  # the worst copies
    counted_by_part = rate_interval(np.array([False, False, True, False]), np.array([0, 0, 0, 1]))
    assert images["escape_rate_interval"] == pytest.approx(counted_by_part)
    of_both_classes = pooled([1, -1], [True, False], [0, 0])
    assert of_both_classes.by_part.files == ["bad/0.png", "good/1.png"]
    mixed = pooled([-5, 1, 3, 2], [False, False, True, True], [7, 2, 5, 5])
    assert mixed.by_part.margins.tolist() == [-5, 1, 2.5]  # in the order of the images, whatever the parts' numbers
    surest = pooled([36.7368005696771] * 7, [True] * 6 + [False], [0] * 6 + [1])  # a sixth of six times is less
    assert surest.by_part.numbers()["auroc"] == 0.5
    on_the_cut = pooled([0, 0], [True, False], [0, 1]).numbers()  # who reaches the threshold is called defective
    assert [on_the_cut[rate] for rate in ("escape_rate", "overkill_rate", "overkill_at_1%_escapes")] == [0, 1, 1]


def test_overkill_is_compared_where_as_many_defects_pass() -> None:
    margins = [*range(1, 201), *np.linspace(0.5, 2.5, 100)]
    judged = pooled([float(margin) for margin in margins], [True] * 200 + [False] * 100, list(range(300)))
    numbers = judged.numbers()
    # At 1 % two of 200 defects may pass, so the cut is at the third: 3 rejects no good part; without any, 1 rejects 75.
    assert numbers["overkill_at_1%_escapes"] == 0
    judged = pooled([float(margin) for margin in margins], [True] * 200 + [False] * 100, list(range(300))).only(
        np.arange(300) >= 101
    )
    assert judged.numbers()["overkill_at_1%_escapes"] == 0


def test_worst_of_several_settings_is_the_lowest_auroc_and_the_highest_rate() -> None:
    one = pooled([1, -1, -1, -2], [True, True, False, False], [0, 1, 2, 3])
    other = pooled([1, 2, 1.5, -2], [True, True, False, False], [0, 1, 2, 3])
    data = {"test_fraction": 0.5, "slices": {}, "defect_class": "bad", "source": "folder", "root": "x", "groups": "t"}
    examined = Examination({"seed=0": one, "seed=1": other}, data | {"protocol": ""})
    assert examined.worst == "seed=1"
    summary = examined.metrics["summary"]["all images"]
    assert summary["escape_rate"] == {"mean": 0.25, "worst": 0.5}
    assert summary["overkill_rate"] == {"mean": 0.25, "worst": 0.5}
    assert summary["auroc"] == {"mean": pytest.approx((0.875 + 0.75) / 2), "worst": 0.75}


def test_images_are_counted_from_their_own_folds_threshold_and_by_published_labels_too(tmp_path: Path) -> None:
    folds = {0.5: "bad/0.png,bad,0.3\nbad/1.png,good,0.3\n", 0.1: "bad/2.png,bad,0.3\n"}
    for fold, (threshold, rows) in enumerate(folds.items()):
        (tmp_path / str(fold)).mkdir()
        (tmp_path / str(fold) / "metrics.json").write_text(json.dumps({"threshold": threshold}))
        (tmp_path / str(fold) / "predictions.csv").write_text(f"file,true,p_defect\n{rows}")
    data = {"test_fraction": 0.5, "slices": {}, "defect_class": "bad", "source": "folder", "root": "x", "groups": None}
    judged = pool([tmp_path / "0", tmp_path / "1"], data)
    assert (judged.numbers()["escape_rate"], judged.numbers()["overkill_rate"]) == (0.5, 0)
    metrics = Examination({"": judged}, data | {"protocol": ""}).metrics
    (numbers,) = metrics["settings"].values()
    assert metrics["parts"] == {"bad": 2, "good": 1}
    assert "by part: mean of its copies" not in numbers  # where every image is taken for a part of its own
    assert (numbers["labels as published"]["escape_rate"], numbers["labels as published"]["auroc"]) == (2 / 3, None)
    (tmp_path / "0" / "predictions.csv").write_text("file,true,p_defect\nbad/0.png,bad,1e-10\ngood/0.png,good,1e-20\n")
    assert pool([tmp_path / "0"], data).numbers()["auroc"] == 1  # however sure, they are told apart
    (tmp_path / "0" / "metrics.json").write_text(json.dumps({"threshold": 0.05}))
    cut = np.float32(0.05)
    rows = f"bad/0.png,bad,{float(cut)}\ngood/0.png,good,{float(np.nextafter(cut, np.float32(0)))}\n"
    (tmp_path / "0" / "predictions.csv").write_text(f"file,true,p_defect\n{rows}")
    on_the_cut = pool([tmp_path / "0"], data).numbers()  # as float32, in which verdicts compare
    assert (on_the_cut["escape_rate"], on_the_cut["overkill_rate"]) == (0, 0)
    with pytest.raises(UserError, match=r"data.root=x: its images or data.groups changed while the folds were trained"):
        pool([tmp_path / "0", tmp_path / "0"], data)


def write_run(folder: Path, number: int, fold: int, *overrides: str, p_bad: float = 0.7, protocol: str = "") -> None:
    """What the report reads of one run, which judged one image of each class."""
    run = folder / str(number)
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in (*overrides, f"data.fold={fold}")))
    judged = {"threshold": 0.5, "data": {"fold": fold, "protocol": protocol}}
    (run / "metrics.json").write_text(json.dumps(judged))
    rows = f"bad/\udcff{fold}.png,bad,{p_bad}\ngood/{fold}.png,good,{1 - p_bad}\n"
    (run / "predictions.csv").write_text(f"file,true,p_defect\n{rows}", encoding="utf-8", errors="surrogateescape")


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """Settings of a sweep of two folds in `tmp_path`, of which nothing is drawn."""
    monkeypatch.setattr(Examination, "picture", lambda self: Figure(figsize=(0.1, 0.1)))
    data = {"test_fraction": 0.5, "slices": {}, "defect_class": "bad", "source": "folder", "root": "x", "groups": None}
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}, "data": data | {"protocol": ""}})


@pytest.mark.parametrize("limited", ["", f"{LIMITED} 1 of 2. "])
def test_of_runs_that_judged_some_of_their_images_alone_no_report_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: DictConfig, limited: str
) -> None:
    for fold in range(2):
        write_run(tmp_path, fold, fold, protocol=limited if fold else "")
    NewPartsReport().on_multirun_end(swept)
    assert ("judged some of their test images alone" in capsys.readouterr().out) is bool(limited)
    assert (tmp_path / "new_parts.json").exists() is not bool(limited)


def test_settings_are_pooled_each_by_itself_and_one_that_lacks_a_fold_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: DictConfig
) -> None:
    runs = [(0, 0, 0.7), (0, 1, 0.7), (1, 0, 0.3), (1, 1, 0.3), (2, 0, 0.7), (0, 1, 0.7)]  # one of them twice
    for number, (seed, fold, p_bad) in enumerate(runs):
        write_run(tmp_path, number, fold, f"seed={seed}", p_bad=p_bad)
    NewPartsReport().on_multirun_end(swept)
    settings = json.loads((tmp_path / "new_parts.json").read_text())["settings"]
    assert {name: of["all images"]["escape_rate"] for name, of in settings.items()} == {"seed=0": 0, "seed=1": 1}
    cells = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    assert next(row[-3:-1] for row in cells if "escape rate" in row) == ["0.50000", "1.00000"]  # mean and worst


def test_the_picture_has_the_worst_part_first_under_its_worst_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = pooled([1, 3, -2, 9, 0.5, -1], [True, True, True, True, False, False], [0, 0, 1, 1, 2, 3])
    for row, file in enumerate(judged.files):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), row).save(tmp_path / file)
    shown: list[tuple[list[float], list[bool], int]] = []

    def draw(*of: list[np.ndarray]) -> None:
        columns = zip(*of, strict=True)
        shown.extend((margins.tolist(), bad.tolist(), int(thumbnail[0, 0])) for margins, bad, thumbnail in columns)

    monkeypatch.setattr(figures, "parts_against_cut", draw)
    data = {"slices": {}, "defect_class": "bad", "root": tmp_path, "source": "folder", "groups": None}
    better = pooled([9, 9, 9, 9, -9, -9], judged.defective.tolist(), judged.parts.tolist())  # as another setting ranks
    Examination({"a": better, "b": judged}, data | {"protocol": "", "test_fraction": 0.5}).picture()
    good, bad = [False], [True, True]
    assert shown == [([-2, 9], bad, 2), ([0.5], good, 4), ([1, 3], bad, 0), ([-1], good, 5)]


def test_one_command_judges_every_part_by_a_network_that_never_saw_it_and_leaves_one_page(
    run_train: Command, castings: Path, tmp_path: Path
) -> None:
    root = tmp_path / "deeper"
    shutil.copytree(castings, root)
    good = root / "train" / "ok_front"
    good.rename(root / "moving")
    good.mkdir()
    (root / "moving").rename(good / "monday")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpeg"))
    with (tmp_path / "parts.csv").open("w", newline="") as table:
        rows = [(file, f"{file.split('/')[1]} {row % 20}") for row, file in enumerate(files)]
        csv.writer(table).writerows([("file", "group"), *rows])
    folds = ["data.test_fraction=0.5", "data.val_fraction=0.5", "data.fold=0,1", "trainer.max_epochs=1"]
    settings = [f"data.root={root}", f"data.groups={tmp_path / 'parts.csv'}", "+data.slices.sevens='*7.jpeg'"]
    lamps = tmp_path / "lamps.csv"
    lamps.write_text("file,lamp\n" + "".join(f"{file},[/b]\n" for file in files))
    slices = f"+data.slices.lamp={lamps}:lamp"
    ran = run_train("experiment=new_parts", *folds, *settings, slices, pictures=True)
    assert ran.code == 0, ran.err
    judged = [
        row["file"] for fold in "01" for row in csv.DictReader((ran.folder / fold / "predictions.csv").open(newline=""))
    ]
    assert sorted(judged) == files
    report = json.loads((ran.folder / "new_parts.json").read_text())
    assert sum(report["parts"].values()) == len({part for _, part in rows})
    (numbers,) = report["settings"].values()
    assert numbers["all images"]["images"] == len(files)
    assert "labels as published" not in numbers  # none was corrected, wherever within its class an image lies
    assert numbers["sevens"]["images"] == sum(file.endswith("7.jpeg") for file in files)
    assert numbers["by part: mean of its copies"]["images"] == len({part for _, part in rows})
    page = (ran.folder / "new_parts.html").read_text()
    for shown in (f"{numbers['all images']['auroc']:.5f}", "count parts", "2 folds by part", "<img alt="):
        assert shown in page
    assert "New parts: 2 folds" in ran.out
    assert "[/b]" in ran.out
    picture = np.asarray(Image.open(ran.folder / "new_parts.png").convert("RGB")).reshape(-1, 3)
    for colour in ((179, 38, 30), (31, 122, 77)):  # frames of defective and of good parts
        assert (abs(picture.astype(int) - colour).sum(1) < 12).sum() > 100


def test_a_handful_is_not_dealt_to_folds_and_folds_are_counted_before_time_is_spent(run_train: Command) -> None:
    both = run_train("experiment=new_parts", "data.fold=0", "data.shots=[2,2]")
    assert (both.code, "data.shots=[2, 2]: decides what is tested" in both.err) == (2, True), both.err
    none = run_train("experiment=new_parts", "data.fold=3", "data.test_fraction=0.34", folder="none")
    assert (none.code, "data.fold=3: data.test_fraction=0.34 makes 3 folds, 0 to 2" in none.err) == (2, True), none.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data.test_fraction=0.5", "data.fold=0,1,2,3,4: data.test_fraction=0.5 makes 2 folds"),
        ("data.fold=0,1,2", "data.fold=0,1,2: data.test_fraction=0.2 makes 5 folds"),
        ("data.root=a,b", "data.root: one report is of one folder"),
        ("data.corrections=null,{}", "data.corrections: one report is of one folder"),
    ],
)
def test_a_sweep_that_no_report_can_come_of_is_refused_before_its_first_run(
    run_train: Command, words: str, message: str
) -> None:
    ran = run_train("experiment=new_parts", words)
    assert (ran.code, message in ran.err) == (2, True), ran.err
    assert not list(ran.folder.glob("*/metrics.json"))


@pytest.mark.parametrize(("folds", "fraction"), [("range(0,11)", 0.09), ("1,0", 0.5)])
def test_any_number_of_folds_may_be_asked_for_in_any_order(folds: str, fraction: float) -> None:
    hydra = {"sweeper": {}, "overrides": {"task": [f"data.fold={folds}"]}}
    NewPartsReport().on_multirun_start(OmegaConf.create({"hydra": hydra, "data": {"test_fraction": fraction}}))


@pytest.mark.parametrize(
    "word",
    [
        "data=a,b",
        "data.groups=a,b",
        "data.slices={},null",
        "data.slices.lamp=a,b",
        "data.corrections.bad=[],[x]",
        "data.defect_class=a,b",
        "data.test_fraction=0.5,0.2",
    ],
)
def test_what_all_folds_have_in_common_is_not_swept(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    hydra = {"sweeper": {}, "overrides": {"task": [word]}}
    with pytest.raises(SystemExit):
        NewPartsReport().on_multirun_start(OmegaConf.create({"hydra": hydra, "data": {"test_fraction": 0.5}}))
    assert f"error: {word.split('=')[0]}: one report is of one folder and its parts" in capsys.readouterr().err


def test_a_start_that_may_have_seen_the_parts_is_told_of(run_train: Command, trained: Path) -> None:
    start = trained / "checkpoints" / "best.ckpt"
    half = ["data.test_fraction=0.5", "data.val_fraction=0.5", "data.fold=0,1", "+data.slices.all='*'"]
    ran = run_train("experiment=new_parts", *half, "trainer.max_epochs=1", f"model.start={start}")
    assert ran.code == 0, ran.err
    protocol = json.loads((ran.folder / "new_parts.json").read_text())["data"]["protocol"]
    assert protocol.endswith(f"All began from {start}, which may have seen any of them.")


def test_a_start_that_may_have_seen_test_images_is_told_of_where_every_run_draws_its_own(
    run_train: Command, trained: Path, castings: Path
) -> None:
    for root, told in ((castings / "train", True), (castings, False)):
        start = f"model.start={trained / 'checkpoints' / 'best.ckpt'}"
        ran = run_train(f"data.root={root}", start, "trainer.max_epochs=1", folder=root.name)
        assert ran.code == 0, ran.err
        assert ("may have seen" in ran.out) is told


def test_a_sweep_does_not_leave_its_runs_elsewhere_than_was_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "experiment=new_parts", f"hydra.run.dir={tmp_path / 'here'}"])
    with pytest.raises(SystemExit) as ended:
        entry.guard(train.main)
    assert (ended.value.code, "name hydra.sweep.dir" in capfd.readouterr().err) == (2, True)


def test_a_fold_alone_makes_no_report_and_says_so(run_train: Command) -> None:
    ran = run_train("experiment=new_parts", "data.fold=3", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    assert "no report, since" in ran.out
    assert not (ran.folder / "new_parts.html").exists()
