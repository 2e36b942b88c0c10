import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from castnet.data.augment import network_input
from castnet.errors import UserError
from castnet.export import export as exporting
from castnet.export import resample
from castnet.export.export import export
from castnet.imaging.decode import decode
from castnet.imaging.resample import area_average, nearest
from castnet.line.inspector import Inspector
from castnet.model.checkpoint import load_classifier
from castnet.model.heatmap import cell_grid
from castnet.model.network import CastingCNN
from tests.conftest import castnet_here

SHAPES = [(300, 300), (517, 411), (960, 1280), (31, 45), (64, 128), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [128, 90])
def test_the_graphs_averages_are_trainings_to_the_bit(shape: tuple[int, int], size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    expected = np.stack([area_average(image, size) for image in images])
    assert np.array_equal(resample.area_average(torch.from_numpy(images), size).numpy(), expected)
    expected = np.stack([nearest(image, size) for image in images])
    assert np.array_equal(resample.nearest(torch.from_numpy(images), size).numpy(), expected)


def test_the_file_judges_every_test_image_as_training_did(trained: Path, exported: Path, castings: Path) -> None:
    rows = list(csv.DictReader((trained / "predictions.csv").open()))
    assert len(rows) == 12
    inspector = Inspector(exported)
    for row in rows:
        verdict = inspector.inspect(castings / row["file"])
        assert verdict.p_defect == pytest.approx(float(row["p_defect"]), abs=1e-5)
        assert verdict.class_name == row["predicted"]


def test_a_batch_is_judged_as_its_images_are(model: Path, test_images: list[Path]) -> None:
    session = ort.InferenceSession(model)
    images = np.stack([decode(file) for file in test_images])
    everyone = np.arange(len(images))
    together = session.run(None, {"images": images, "explained": everyone})
    for index, image in enumerate(images):
        alone = session.run(None, {"images": image[None], "explained": np.zeros(1, np.int64)})
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[index], one[0], atol=1e-5)


def test_the_file_says_where_it_comes_from_and_how_good_it_is(trained: Path, castings: Path, exported: Path) -> None:
    card = Inspector(exported).card
    metrics = json.loads((trained / "metrics.json").read_text())
    assert card["class_names"] == ["def_front", "ok_front"]
    assert card["defect_class"] == "def_front"
    assert [card[key] for key in ("threshold", "temperature")] == [metrics[key] for key in ("threshold", "temperature")]
    assert (card["data"]["source"], card["data"]["root"]) == ("folder", castings.name)
    assert str(castings.parent) not in json.dumps(card), "the model leaves the house, the folders' names stay"
    assert card["data"]["counts"] == metrics["data"]["counts"]
    assert card["test"]["escape_rate"] == metrics["escape_rate"]
    assert card["validation"] == metrics["validation"]


@pytest.mark.parametrize("changed_since", ["threshold", "weights"])
def test_a_run_that_has_gone_on_since_it_was_judged_is_not_said_to_be_as_good(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed_since: str
) -> None:
    cards: list[dict[str, Any]] = []
    card_of = exporting._card
    monkeypatch.setattr(exporting, "_card", lambda *given: cards.append(card_of(*given)))
    run = shutil.copytree(trained, tmp_path / "run")
    taken = run / "checkpoints" / "best.ckpt"
    if changed_since == "threshold":
        metrics = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps(metrics | {"threshold": 0.7}))
    else:
        taken = shutil.copy(taken, run / "checkpoints" / "later.ckpt")
    with pytest.raises(UserError, match="not as training writes them"):  # for no card is given here
        exporting.export(taken, tmp_path / "model.onnx")
    (card,) = cards
    assert "test" not in card


@pytest.fixture(scope="module")
def changed(trained: Path, castings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one view, of temperature 3 and with cuts that part the test images in three, beside its checkpoint."""
    folder = tmp_path_factory.mktemp("changed")
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] |= {"temperature": 3.0, "views": 1}
    torch.save(checkpoint, folder / "model.ckpt")
    ranked = sorted(p_defect(folder / "model.ckpt", sorted((castings / "test").rglob("*.jpeg"))))
    low, high = (ranked[3] + ranked[4]) / 2, (ranked[7] + ranked[8]) / 2
    checkpoint["hyper_parameters"] |= {"threshold": low, "defective_from": high}
    torch.save(checkpoint, folder / "model.ckpt")
    export(folder / "model.ckpt", folder / "model.onnx")
    return folder / "model.onnx"


def p_defect(ckpt_path: Path, files: list[Path]) -> list[float]:
    """What PyTorch says of images."""
    classifier = load_classifier(ckpt_path).eval()
    pixels = torch.from_numpy(np.stack([area_average(decode(file), 64) for file in files]))
    with torch.no_grad():
        return classifier.defect_probability(classifier(network_input(pixels, 32))).tolist()


def test_temperature_and_cuts_go_into_the_file_and_between_the_cuts_a_casting_is_doubtful(
    changed: Path, test_images: list[Path]
) -> None:
    inspector = Inspector(changed)
    low, high = inspector.card["threshold"], inspector.card["defective_from"]
    given = set()
    for file, expected in zip(test_images, p_defect(changed.with_suffix(".ckpt"), test_images), strict=True):
        verdict = inspector.inspect(file)
        assert verdict.p_defect == pytest.approx(expected, abs=1e-5)
        assert verdict.is_defect == (expected >= low)
        word = "good" if expected < low else "defective" if expected >= high else "unsure"
        assert (verdict.verdict, verdict.reason) == (word, "doubtful" if word == "unsure" else None)
        given.add(word)
    assert given == {"good", "defective", "unsure"}
    assert "test" not in inspector.card, "the run's test metrics are those of other settings"


def test_a_checkpoint_that_is_not_a_runs_outcome_is_refused(trained: Path, tmp_path: Path) -> None:
    last = trained / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"last\.ckpt: no threshold was chosen for it; take .*best\.ckpt, or this"):
        export(last, tmp_path / "last.onnx")
    shutil.copy(last, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: belongs to a run that did not end"):
        export(tmp_path / "last.ckpt", tmp_path / "last.onnx")


def test_the_evidence_is_the_gradient_times_the_features(changed: Path, test_images: list[Path]) -> None:
    image = decode(test_images[0])
    classifier = load_classifier(changed.with_suffix(".ckpt")).eval()
    layers = classifier.network.layers
    x = network_input(torch.from_numpy(area_average(image, 64)[None]), 32)
    features = layers[:9](((x - 0.5) / 0.25).expand(-1, 3, -1, -1)).detach().requires_grad_()
    (-layers[9:](features)).sum().backward()  # class 0 is the defect
    expected = (features * features.grad).sum(1)[0].detach()
    session = ort.InferenceSession(changed)
    found, none = (
        session.run(["evidence"], {"images": image[None], "explained": np.arange(count)})[0] for count in (1, 0)
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert np.abs(found).max() > 1e-3
    assert len(none) == 0


@pytest.mark.parametrize("size", [22, 32, 64, 90])
def test_a_cell_of_the_evidence_is_centred_on_the_pixels_it_sees(size: int) -> None:
    images = torch.rand(1, 3, size, size, requires_grad=True)
    network = CastingCNN(size, dropout=0.0)
    linear = torch.nn.Sequential(
        *(torch.nn.AvgPool2d(2) if i % 3 == 1 else network.layers[i] for i in (0, 1, 3, 4, 6, 7))
    )
    for parameter in linear.parameters():
        torch.nn.init.ones_(parameter)
    features = linear(images)
    first, step = cell_grid(size)
    for cell in range(features.shape[-1]):
        (gradient,) = torch.autograd.grad(features[0, 0, cell, 0], images, retain_graph=True)
        weight = gradient[0, 0].sum(1)
        assert ((torch.arange(size) + 0.5) * weight).sum() / weight.sum() / size == pytest.approx(first + cell * step)


def test_a_file_that_judges_otherwise_is_not_written(
    trained: Path, changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graph of other views stands for any way in which a graph may part from training.
    monkeypatch.setattr(exporting, "_to_onnx", lambda _: onnx.load(changed))
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the model in use")
    with pytest.raises(UserError, match=r"model.onnx: not written, because ONNX Runtime does not judge as PyTorch"):
        exporting.export(trained, out)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.read_bytes() == b"the model in use"


def test_the_command_exports_a_checkpoint_that_lies_alone_and_whose_images_are_gone_and_says_what_it_lacks(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["datamodule_hyper_parameters"]["root"] = str(tmp_path / "gone")
    torch.save(checkpoint, tmp_path / "elsewhere.ckpt")
    assert castnet_here("export", "elsewhere.ckpt", "-o", "model.onnx", "--unfinished") == 0
    said = capsys.readouterr().out
    assert "drawn castings as PyTorch does" in said
    assert said.endswith("; of an unfinished run; finds nothing unfamiliar, so that anything may pass as good\n")
    card = Inspector(tmp_path / "model.onnx").card
    assert (card["threshold"], card["finished"]) == (checkpoint["hyper_parameters"]["threshold"], False)


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("nowhere", "model.onnx", "nowhere: no checkpoint there"),
        (".", "model.onnx", "no checkpoint there; expected the folder of a run"),
        ("run", "nowhere/model.onnx", "nowhere/model.onnx: cannot be written"),
    ],
)
def test_a_wrong_path_is_one_line(
    trained: Path, tmp_path: Path, source: str, out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert castnet_here("export", trained if source == "run" else tmp_path / source, "-o", tmp_path / out) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
