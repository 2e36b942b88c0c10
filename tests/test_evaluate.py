import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castnet.imaging.decode import decode
from tests.conftest import Command, on_slurm


@pytest.fixture
def best(trained: Path) -> Path:
    return trained / "checkpoints" / "best.ckpt"


def folder_of(root: Path) -> list[str]:
    return ["data=folder", f"data.root={root}", "data.defect_class=def_front"]


def test_the_report_repeats_what_training_said_of_the_test_images(
    run_evaluate: Command, best: Path, trained: Path, castings: Path
) -> None:
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings))
    assert ran.code == 0, ran.err
    assert json.loads((ran.folder / "metrics.json").read_text()) == json.loads((trained / "metrics.json").read_text())
    assert (ran.folder / "predictions.csv").read_text() == (trained / "predictions.csv").read_text()
    for word in ("def_front", "ok_front", "escape rate", "overkill rate", "AUROC"):
        assert word in ran.out


def test_weights_that_another_job_left_on_slurm_are_not_judged(
    run_evaluate: Command, best: Path, trained: Path, castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.load(best, weights_only=False)
    other["state_dict"] = {name: torch.zeros_like(weights) for name, weights in other["state_dict"].items()}
    torch.save(other, tmp_path / "hpc_ckpt_1.ckpt")  # as Lightning names what it keeps of a job that is put back
    on_slurm(monkeypatch)
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings))
    assert ran.code == 0, ran.err
    assert (ran.folder / "predictions.csv").read_text() == (trained / "predictions.csv").read_text()


def test_predictions_name_every_file_and_add_up_to_the_confusion_matrix(trained: Path, castings: Path) -> None:
    rows = list(csv.DictReader((trained / "predictions.csv").open()))
    assert {castings / row["file"] for row in rows} == set((castings / "test").rglob("*.jpeg"))
    metrics = json.loads((trained / "metrics.json").read_text())
    names = metrics["class_names"]
    matrix = [[sum(r["true"] == t and r["predicted"] == p for r in rows) for p in names] for t in names]
    assert matrix == metrics["confusion_matrix"]
    for row in rows:
        assert (float(row["p_defect"]) >= metrics["threshold"]) == (row["predicted"] == "def_front")


def test_the_page_stands_alone_and_shows_rates_and_pictures(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)  # which four letters of a picture may spell by chance
    metrics = json.loads((trained / "metrics.json").read_text())
    escapes = metrics["confusion_matrix"][0][1]
    assert f"<b>{escapes} of {metrics['classes']['def_front']['support']}</b>" in page


def test_the_page_shows_where_the_evidence_lies_in_every_error(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    errors = re.search(r"Misclassified: (\d+)", page)
    assert errors
    assert int(errors[1]) > 0, "two epochs do not make a perfect network"
    assert 'alt="evidence in the misclassified images"' in page
    images = [Image.open(trained / "figures" / f"{name}.png").convert("RGB") for name in ("errors", "evidence")]
    assert images[0].size == images[1].size


def test_a_folder_of_two_classes_without_a_test_part_is_judged_whole(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path
) -> None:
    for name in ("def_front", "ok_front"):
        (tmp_path / "line" / name).mkdir(parents=True)
        for path in list((castings / "train" / name).iterdir())[:5]:
            big = Image.fromarray(decode(path)).resize((500, 400)).convert("RGB")
            big.save(tmp_path / "line" / name / f"{path.stem}.png")
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(tmp_path / "line"))
    assert ran.code == 0, ran.err
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert (metrics["data"]["subset"], np.sum(metrics["confusion_matrix"])) == ("all", 10)
    assert "pixel by pixel" not in ran.out
    assert "<td>split</td>" not in (ran.folder / "report.html").read_text()  # none was made of it


def test_parts_never_seen_in_training_are_judged_by_themselves(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path
) -> None:
    files = [path.relative_to(castings).as_posix() for path in sorted(castings.rglob("*.jpeg"))]
    seen = [file for file in files if file.startswith("test/")][:5]
    twin = next(file for file in files if file.startswith("train/"))
    lines = [f"{file},{twin if file in seen else file}" for file in files]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings), f"data.groups={tmp_path / 'groups.csv'}")
    assert ran.code == 0, ran.err
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    whole, unseen = metrics["confusion_matrix"], metrics["slices"]["parts never seen in training"]["confusion_matrix"]
    assert (np.sum(whole), np.sum(unseen)) == (12, 7)
    predictions = {row["file"]: row for row in csv.DictReader((ran.folder / "predictions.csv").open())}
    rows = [row for file, row in predictions.items() if file not in seen]
    names = metrics["class_names"]
    assert unseen == [[sum(r["true"] == t and r["predicted"] == p for r in rows) for p in names] for t in names]
    assert "parts never" in ran.out  # the table breaks long names


def test_a_folder_trained_on_is_not_judged_under_another_assignment(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path
) -> None:
    (tmp_path / "clean.csv").write_text("file,split\n")
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings), f"data.assignment={tmp_path / 'clean.csv'}")
    assert ran.code == 2
    assert "its training images would be among the test images" in ran.err


def test_a_folder_that_was_changed_since_is_not_judged_by_what_may_have_been_learnt(
    run_train: Command, run_evaluate: Command, castings: Path, tmp_path: Path
) -> None:
    shutil.copytree(castings / "train", flat := tmp_path / "flat")
    learnt = run_train(f"data.root={flat}", "trainer.max_epochs=1")
    assert learnt.code == 0, learnt.err
    judge = (f"ckpt_path={learnt.folder}/checkpoints/best.ckpt", *folder_of(flat))
    as_it_was = run_evaluate(*judge, folder="as-it-was")
    assert as_it_was.code == 0, as_it_was.err
    copy = shutil.copytree(flat, tmp_path / "copy")  # learnt all the same
    copied = run_evaluate(judge[0], *folder_of(copy), folder="copied")
    assert copied.code == 0, copied.err
    assert (copied.folder / "predictions.csv").read_text() == (as_it_was.folder / "predictions.csv").read_text()
    min((copy / "ok_front").iterdir()).unlink()  # another folder, then, which is judged whole
    whole = run_evaluate(judge[0], *folder_of(copy), folder="whole")
    assert whole.code == 0, whole.err
    told = re.search(r"([0-9]+) of the 107 are, pixel by pixel, among those that the checkpoint learnt", whole.out)
    assert told
    assert told[0] in (whole.folder / "report.html").read_text()
    counts = json.loads((copied.folder / "metrics.json").read_text())["data"]["counts"]
    learnt_of = sum(sum(counts[name].values()) for name in ("train", "val"))
    assert int(told[1]) in (learnt_of - 1, learnt_of)
    one = next((castings / "test" / "ok_front").iterdir())
    shutil.copy(one, flat / "ok_front" / "another.jpeg")
    ran = run_evaluate(*judge, folder="changed")
    assert ran.code == 2
    assert f"data.root={flat}: its images, or what is known of them, are not what the checkpoint was trained" in ran.err


def test_what_training_knew_of_a_folder_is_known_when_it_is_judged(
    run_train: Command, run_evaluate: Command, castings: Path, tmp_path: Path
) -> None:
    shutil.copytree(castings / "train", flat := tmp_path / "flat")
    files = sorted(path.relative_to(flat).as_posix() for path in flat.rglob("*.jpeg"))
    parts = [f"{file},{file.split('/')[0]}{number // 2}" for number, file in enumerate(files)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *parts]))
    known = [f"data.groups={tmp_path / 'groups.csv'}", f"+data.corrections.ok_front=[{files[0]},{files[1]}]"]
    learnt = run_train(f"data.root={flat}", *known, "trainer.max_epochs=1")
    assert learnt.code == 0, learnt.err
    judged = run_evaluate(f"ckpt_path={learnt.folder}/checkpoints/best.ckpt", *folder_of(flat))
    assert judged.code == 0, judged.err
    assert (judged.folder / "predictions.csv").read_text() == (learnt.folder / "predictions.csv").read_text()
    before, now = (json.loads((ran.folder / "metrics.json").read_text())["data"] for ran in (learnt, judged))
    assert now["protocol"] == before["protocol"]


def test_a_handful_that_was_learnt_from_one_folder_is_judged_on_another(
    run_train: Command, run_evaluate: Command, castings: Path, tmp_path: Path
) -> None:
    learnt = run_train("data.shots=[2,2]", "trainer.max_epochs=1")
    assert learnt.code == 0, learnt.err
    shutil.copytree(castings, other := tmp_path / "other")
    next((other / "train" / "ok_front").iterdir()).unlink()
    ran = run_evaluate(f"ckpt_path={learnt.folder}/checkpoints/best.ckpt", *folder_of(other))
    assert ran.code == 0, ran.err
    assert "12 test" in ran.out


def test_a_checkpoint_without_a_threshold_of_its_own_is_judged_with_a_word_on_its_cut(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(best, weights_only=True)
    torch.save(checkpoint | {"finished": False}, tmp_path / "cut.ckpt")
    ran = run_evaluate(f"ckpt_path={tmp_path / 'cut.ckpt'}", *folder_of(castings))
    assert ran.code == 0, ran.err
    told = "No threshold was chosen for this checkpoint, as one is for best.ckpt when a run ends: the cut is at"
    assert told in ran.out
    assert told in json.loads((ran.folder / "metrics.json").read_text())["data"]["protocol"]


@pytest.mark.parametrize("kind", ["missing", "foreign", "text", "other architecture"])
def test_a_checkpoint_that_is_not_ours_is_refused(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "model.ckpt"
    if kind == "foreign":
        torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, path)
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "other architecture":
        checkpoint = torch.load(best, weights_only=True)
        checkpoint["state_dict"]["network.layers.0.weight"] = torch.zeros(16, 3, 3, 3)
        torch.save(checkpoint, path)
    ran = run_evaluate(f"ckpt_path={path}", *folder_of(castings))
    assert ran.code == 2
    assert (
        f"error: ckpt_path={path}: {'no such file' if kind == 'missing' else 'not a checkpoint of castnet'}" in ran.err
    )
    assert "Traceback" not in ran.err


def test_other_classes_than_the_checkpoints_are_refused(
    run_evaluate: Command, best: Path, castings: Path, tmp_path: Path
) -> None:
    shutil.copytree(castings / "test", tmp_path / "other")
    (tmp_path / "other" / "ok_front").rename(tmp_path / "other" / "good")
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(tmp_path / "other"))
    assert ran.code == 2
    assert "has the classes ['def_front', 'good'], the checkpoint knows ['def_front', 'ok_front']" in ran.err
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings), "data.defect_class=ok_front", folder="swapped")
    assert ran.code == 2
    with_what = f"data=folder data.root={castings} data.defect_class=def_front"
    assert f"data.defect_class=ok_front: the checkpoint was trained to find def_front, with {with_what};" in ran.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+data.image_size=64", "data.image_size=64: the checkpoint was trained with 32; leave it out"),
        ("+data.shots=[2,2]", "data.shots=[2, 2]: the checkpoint was trained on this folder with None; leave it out"),
        ("+data.val_fraction=0.5", "data.val_fraction=0.5: the checkpoint was trained on this folder with 0.2; leave"),
        ("+data.class_names=[a,b]", "data.class_names: no such setting"),
        ("+data.oversample=4", "data.oversample=4: the checkpoint was trained with 2; leave it out"),
        ("+data.resample=nearest", "data.resample=nearest: the checkpoint was trained with area; leave it out"),
        ("+trainer.limit_test_batches=0", "trainer.limit_test_batches=0: leaves nothing to judge"),
        ("+trainer.limit_test_batches=0.01", "trainer.limit_test_batches=0.01: is less than one of 1 batches of test"),
        (
            "report.robustness=true +trainer.limit_test_batches=1",
            "report.robustness=true: judges all test images; leave",
        ),
        ("report.robustness=true +trainer.fast_dev_run=true", "report.robustness=true: judges all test images; leave"),
        ("+trainer.precision=64-true", "trainer.precision=64-true: expected one of 32-true"),
        ("paths.output_dir=elsewhere", "paths.output_dir: follows from hydra.run.dir"),
        ("report=null", "report.robustness=None: expected"),
        ("+logger=csv", "logger: an evaluation has no such setting, but ckpt_path, data"),
        ("+threshold.escape_cost=5", "threshold: an evaluation has no such setting, but ckpt_path, data"),
    ],
)
def test_what_would_judge_otherwise_than_in_training_or_nothing_is_refused(
    run_evaluate: Command, best: Path, castings: Path, override: str, message: str
) -> None:
    ran = run_evaluate(f"ckpt_path={best}", *folder_of(castings), *override.split())
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (ran.folder / "metrics.json").exists()


def test_no_checkpoint_named_is_one_clear_line(run_evaluate: Command) -> None:
    ran = run_evaluate()
    assert ran.code == 2
    assert "error: ckpt_path: has no value; give it one, as ckpt_path=VALUE" in ran.err


def test_several_checkpoints_are_judged_when_all_are_there(
    trained: Path, run_evaluate: Command, castings: Path, tmp_path: Path
) -> None:
    there, missing = trained / "checkpoints" / "best.ckpt", tmp_path / "missing.ckpt"
    ran = run_evaluate("-m", f"ckpt_path={there},{missing}", *folder_of(castings))
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert f"error: ckpt_path={missing}: no such file" in ran.err
    assert not list(ran.folder.rglob("metrics.json"))
    ran = run_evaluate("-m", f"ckpt_path={there},{trained}/checkpoints/last.ckpt", *folder_of(castings), folder="both")
    assert (ran.code, len(list(ran.folder.rglob("metrics.json")))) == (0, 2), ran.err
