"""A checkpoint as one ONNX file: decoded image in, P(defect) out, with all that belongs to it as metadata."""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from castnet.data.augment import network_input
from castnet.data.folder import read_folder
from castnet.drawn.folder import draw
from castnet.errors import UserError
from castnet.export import resample as in_graph
from castnet.files import replacing
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import RESAMPLE
from castnet.model.checkpoint import is_finished, load_classifier
from castnet.model.classifier import VERDICTS, CastingClassifier
from castnet.model.heatmap import cell_grid
from castnet.model.metrics import defined

CHECKED = 64  # images that the written file must judge as PyTorch does
TOLERANCE = 1e-4  # of their logits
Resample = Callable[[Grey, int], Grey]
RATES = ("escape_rate", "escape_rate_interval", "overkill_rate", "overkill_rate_interval", "intervals")
SUMMARY = ("accuracy", "auroc", *RATES, "confusion_matrix")


class Deployed(nn.Module):
    """From decoded images to verdicts, and what they follow from, in one graph.

    Args:
        classifier: in evaluation mode.
        stored_size: side in pixels at which training stored its images.
        resample: a key of `castnet.export.resample.RESAMPLE`.
    """

    def __init__(self, classifier: CastingClassifier, stored_size: int, resample: str) -> None:
        super().__init__()
        self.classifier, self.stored_size = classifier, stored_size
        self.resample = in_graph.RESAMPLE[resample]

    def forward(self, images: Tensor, explained: Tensor) -> tuple[Tensor, ...]:
        """Judge grey images of one size.

        Args:
            images: uint8 (n, height, width).
            explained: which of them to explain, int64 (k,). ONNX Runtime computes outputs that nobody asked for, so
                it is this that keeps a verdict without evidence cheap.

        Returns:
            P(defect), float32 (n,); logits of class 1, float32 (n,); evidence, float32 (k, cells, cells), see
            `CastingClassifier.explain`; unfamiliarity, float32 (n,); verdicts, int64 (n,), see
            `CastingClassifier.verdicts`.
        """
        pixels = self.resample(images, self.stored_size)
        inputs = network_input(pixels, self.classifier.hparams["image_size"])
        logits, evidence = self.classifier.explain(inputs, explained)
        p_defect, unfamiliarity = self.classifier.defect_probability(logits), self.classifier.unfamiliarity(inputs)
        return p_defect, logits, evidence, unfamiliarity, self.classifier.verdicts(p_defect, unfamiliarity)


def export(source: Path, out: Path, unfinished: bool = False) -> str:
    """Write a trained classifier as one ONNX file that ONNX Runtime judges images with.

    Its inputs and outputs are those of `Deployed.forward`, with any number of images of any height and width. Its
    metadata entry `castnet` is JSON, what `castnet.line.inspector.Inspector.card` holds.

    Args:
        source: the folder of a training run, whose best weights are taken, or a checkpoint.
        out: file to write; one that is there is replaced, once the new one has been checked.
        unfinished: take a checkpoint of a run that did not come to its end, so that no threshold was chosen for it. The
            card's entry `finished` says of every model whether it is such a one.

    Returns:
        One line that says what was written and how it was checked.

    Raises:
        UserError: the source is no run or checkpoint of castnet's or is unfinished, the file cannot be written, or ONNX
            Runtime does not judge as PyTorch does.
    """
    if out.exists() and not (out.is_file() and out.suffix == ".onnx"):  # a checkpoint, say, or a device
        raise UserError(f"{out}: is there and no model; name a new file, or one that ends in .onnx")
    ckpt_path = source / "checkpoints" / "best.ckpt" if source.is_dir() else source
    if not ckpt_path.is_file():
        raise UserError(
            f"{source}: no checkpoint there; expected the folder of a run, such as runs/train/RUN, or a checkpoint"
        )
    classifier = load_classifier(ckpt_path).eval()
    classifier.network.to(memory_format=torch.contiguous_format)
    finished = is_finished(ckpt_path)
    if not finished and not unfinished:
        best = ckpt_path.with_name("best.ckpt")
        if best.is_file() and is_finished(best):
            raise UserError(f"{ckpt_path}: no threshold was chosen for it; take {best}, or this with --unfinished")
        raise UserError(
            f"{ckpt_path}: belongs to a run that did not end, so that no threshold was chosen for it; let it go on, or "
            "take it as it is with --unfinished"
        )
    try:
        data = torch.load(ckpt_path, map_location="cpu", weights_only=True)["datamodule_hyper_parameters"]
        stored_size, resample = data["image_size"] * data["oversample"], RESAMPLE[data["resample"]]
        card = json.dumps(_card(classifier, data, ckpt_path) | {"finished": finished}, allow_nan=False)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{ckpt_path}: its data or its run's metrics.json are not as training writes them ({error!r})"
        ) from error
    with replacing(out) as partial:
        model = _to_onnx(Deployed(classifier, stored_size, data["resample"]))
        model.metadata_props.add(key="castnet", value=card)
        onnx.save(model, partial)
        images, origin = _check_images(data)
        difference = _compare(partial, classifier, images, resample, stored_size)
    said = [] if finished else ["of an unfinished run"]
    if classifier.familiarity is None:
        said.append("finds nothing unfamiliar, so that anything may pass as good")
    return "; ".join(
        [
            f"{out}: {out.stat().st_size / 1e6:.1f} MB",
            f"judges {len(images)} images of {origin} as PyTorch does (logits differ by at most {difference:.0e})",
            *said,
        ]
    )


def _to_onnx(module: Deployed) -> onnx.ModelProto:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own deprecated calls
        program = torch.onnx.export(
            module,
            (torch.zeros(2, 300, 310, dtype=torch.uint8), torch.arange(2)),
            input_names=["images", "explained"],
            output_names=["p_defect", "logits", "evidence", "unfamiliarity", "verdicts"],
            dynamic_shapes=({axis: Dim.DYNAMIC for axis in range(3)}, {0: Dim.DYNAMIC}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _card(classifier: CastingClassifier, data: dict[str, Any], ckpt_path: Path) -> dict[str, Any]:
    """All that a person may ask of the model."""
    card = {
        **{key: classifier.hparams[key] for key in ("class_names", "defect_class", "threshold", "temperature")},
        "defective_from": classifier.hparams["defective_from"],
        "verdicts": VERDICTS,
        "reference": classifier.reference,
        "image_size": classifier.hparams["image_size"],
        "evidence_grid": cell_grid(classifier.hparams["image_size"]),
        "data": {
            "source": data["source"],
            "root": Path(data["root"]).name,
            **{key: data[key] for key in ("protocol", "split", "assignment", "seed", "generate")},
            **{key: data.get(key) for key in ("fold", "shots")},  # missing in checkpoints of castnet 0.1
        },
        "validation": classifier.validation and defined(classifier.validation),
        "castnet": version("castnet"),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    measured = ckpt_path.resolve().parent.parent / "metrics.json"
    if ckpt_path.name == "best.ckpt" and measured.exists():  # a run judges its best weights
        metrics = json.loads(measured.read_text())
        card["data"]["counts"] = metrics["data"]["counts"]
        if metrics["threshold"] == card["threshold"]:  # otherwise the run has gone on since
            card["test"] = defined({key: metrics[key] for key in SUMMARY if key in metrics})
    return card


def _check_images(data: dict[str, Any]) -> tuple[list[Grey], str]:
    """Images to compare the two on, and where they come from: those trained on if they are here, or drawn ones."""
    root = Path(data["root"])
    try:
        paths = read_folder(root, data["defect_class"]).paths
        images, origin = [decode(path) for path in paths[:: max(1, len(paths) // CHECKED)][:CHECKED]], str(root)
    except UserError:  # gone, or not what it was
        images, origin = [draw((0, index), defective=index % 2 == 0)[0] for index in range(CHECKED)], "drawn castings"
    # Other sizes than the camera's, among them one that shares no divisor with the network's and one that is smaller.
    odd = [np.asarray(Image.fromarray(images[0]).resize(size)) for size in ((411, 517), (1280, 960), (45, 31))]
    return [*images, *odd], origin


def _compare(
    file: Path, classifier: CastingClassifier, images: Sequence[Grey], resample: Resample, stored_size: int
) -> float:
    """The largest difference between the logits of PyTorch, by training's own preprocessing, and of the file.

    Raises:
        UserError: it is too large, or a verdict differs.
    """
    session = ort.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    nothing = np.empty(0, np.int64)
    found = [session.run(["logits", "verdicts"], {"images": image[None], "explained": nothing}) for image in images]
    logits, verdicts = (torch.from_numpy(np.concatenate(values)) for values in zip(*found, strict=True))
    pixels = torch.from_numpy(np.stack([resample(image, stored_size) for image in images]))
    with torch.no_grad():
        inputs = network_input(pixels, classifier.hparams["image_size"])
        expected = classifier(inputs)
        decided = classifier.verdicts(classifier.defect_probability(expected), classifier.unfamiliarity(inputs))
    if not (logits.isfinite().all() and expected.isfinite().all()):
        raise UserError(f"{file.stem}: not written, because its logits are not finite; lower model.lr")
    difference = (logits - expected).abs().max().item()
    changed = (verdicts != decided).sum().item()
    if difference > TOLERANCE or changed:
        raise UserError(
            f"{file.stem}: not written, because ONNX Runtime does not judge as PyTorch does: logits differ by up to "
            f"{difference:.1e} (expected at most {TOLERANCE:g}), {changed} of {len(images)} verdicts change"
        )
    return difference
