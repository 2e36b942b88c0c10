"""What loggers are shown and what lies beside a run."""

import math
import re
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from rich.console import Console

from castnet.data.datamodule import CastingDataModule
from castnet.data.describe import summary
from castnet.model.classifier import CastingClassifier
from castnet.processes import in_order
from castnet.report import figures, html
from castnet.report.architecture import architecture
from castnet.report.evaluation import Evaluation
from castnet.report.explain import overlays
from castnet.report.learnt import advice
from castnet.report.tracking import log_comparison, log_picture, tensorboard

SAMPLES_PER_CLASS = 5
# Settings that do not shape the result and would crowd TensorBoard's HParams tab.
NOT_COMPARED = {
    "class_names",
    "defect_class",
    "protocol",
    "generate",
    "corrections",
    "slices",
    "cache_dir",
    "num_workers",
}
FINAL = ("accuracy", "auroc", "escape_rate", "overkill_rate", "threshold", "temperature")
LIMITED = "Only the first"  # of the test images were judged: how the protocol of such a run begins


def draw_samples(datamodule: CastingDataModule, augmented: bool) -> Figure:
    """The first training images of each class as the network sees them, augmented or not."""
    labels = datamodule.folder.labels[datamodule.rows["train"]]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS] for label in (0, 1)])
    pixels = torch.from_numpy(datamodule.block[datamodule.rows["train"][chosen]])
    grey = 255 * datamodule.input_of(pixels, augmented)[:, 0].numpy()
    classes = datamodule.folder.classes
    return figures.sample_images(grey, labels[chosen], classes, classes.index(datamodule.hparams["defect_class"]))


class TrainingPictures(Callback):
    """Sample images, the architecture and the curves as files and for every logger; TensorBoard gets graph and charts.

    Args:
        folder: where the PNG files go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.history: dict[str, list[float]] = defaultdict(list)
        self.validated = False  # in this epoch

    def state_dict(self) -> dict[str, Any]:
        return {"history": dict(self.history)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = defaultdict(list, state_dict["history"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model, datamodule = cast(CastingClassifier, pl_module), cast(CastingDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        self._show(trainer, "samples", draw_samples(datamodule, augmented=True))
        image_size = model.hparams["image_size"]
        self._show(trainer, "architecture", architecture(model.network, image_size))
        if writer := tensorboard(trainer):
            with warnings.catch_warnings():  # add_graph traces, which PyTorch calls deprecated
                warnings.simplefilter("ignore")
                writer.add_graph(model.network, torch.zeros(1, 3, image_size, image_size, device=model.device))
            charts = ["loss", *model.val_metrics.names]
            # Its tags are regular expressions, which names of classes are not.
            tags = {chart: [f"{stage}/{re.escape(chart)}$" for stage in ("train", "val")] for chart in charts}
            layout = {chart: ["Multiline", tags[chart]] for chart in charts}
            writer.add_custom_scalars({"training against validation": layout})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validated = True
        if trainer.loggers:
            model = cast(CastingClassifier, pl_module)
            counts = model.val_metrics.confusion_matrix().cpu().numpy()
            precision, recall, _ = (values.cpu().numpy() for values in model.val_metrics.pr_curve())
            # An epoch that is validated several times has several pictures; as a whole number it counts batches, and
            # where the clock says when there is none.
            interval = getattr(trainer, "val_check_interval", None)
            whole = isinstance(interval, float) and interval == 1
            step = trainer.current_epoch + 1 if whole else trainer.global_step
            for name, figure in {
                "confusion_matrix": figures.confusion_matrix(counts, model.hparams["class_names"]),
                "pr_curve": figures.precision_recall(precision, recall),
            }.items():
                log_picture(trainer, f"val/{name}", html.png(figure), step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The LightningModule logs its training metrics only after this hook, so they are asked of itself.
        self.history["train/accuracy"].append(cast(CastingClassifier, pl_module).train_metrics.compute()["accuracy"])
        self.history["train/loss"].append(trainer.callback_metrics["train/loss"].item())
        for name in ("val/accuracy", "val/loss"):  # of an epoch that was not validated Lightning keeps older values
            self.history[name].append(trainer.callback_metrics[name].item() if self.validated else math.nan)
        self.validated = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, "curves", figures.curves(self.history))

    def _show(self, trainer: Trainer, name: str, figure: Figure) -> None:
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        picture = html.png(figure)
        (self.folder / f"{name}.png").write_bytes(picture)
        log_picture(trainer, name, picture)


class TestReport(Callback):
    """Judge the test images: print the classification report, write the evaluation's files, tell the loggers.

    Args:
        folder: where the files go, see `castnet.report.evaluation.Evaluation.write`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)  # which fails now rather than after training
        # Numbers, since a small tensor kept from every batch would lie between the pixels of all of them.
        self.outputs: dict[str, list[float]] = {"p_defect": [], "unfamiliarity": []}
        self.evaluation: Evaluation | None = None  # there after a test, unless trainer.limit_test_batches is 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for name, values in self.outputs.items():
            values.extend(outputs[name].tolist())

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model, datamodule = cast(CastingClassifier, pl_module), cast(CastingDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        p_defect, unfamiliarity = (in_order(torch.tensor(values)) for values in self.outputs.values())
        if not trainer.is_global_zero:
            return
        everything, data = datamodule.rows[datamodule.test_subset], summary(datamodule)
        rows = everything[: len(p_defect)]
        if len(rows) < len(everything):
            limited = f"{LIMITED} {len(rows):,} of {len(everything):,} images were judged (limit_test_batches)."
            data["protocol"] = f"{limited} {data['protocol']}"
        self.evaluation = Evaluation(
            data=data,
            class_names=model.hparams["class_names"],
            defect_class=model.hparams["defect_class"],
            threshold=model.hparams["threshold"],
            defective_from=model.hparams["defective_from"],
            temperature=model.hparams["temperature"],
            offset=model.offset,
            files=[datamodule.folder.files[row] for row in rows],
            labels=torch.from_numpy(datamodule.folder.labels[rows]),
            parts=None if datamodule.groups is None else datamodule.groups[rows],
            p_defect=p_defect,
            unfamiliarity=unfamiliarity,
            verdicts=model.verdicts(p_defect, unfamiliarity).numpy(),
            block=datamodule.block,
            rows=rows,
            slices={name: chosen[: len(rows)] for name, chosen in datamodule.test_slices().items()},
            validation=model.validation,
            explain=partial(overlays, model, datamodule),
        )
        for name, picture in self.evaluation.write(self.folder).items():
            log_picture(trainer, f"test/{name}", picture)
        metrics = self.evaluation.metrics
        settings = {**model.hparams, **datamodule.hparams, "max_epochs": trainer.max_epochs}
        compared = {name: value for name, value in settings.items() if name not in NOT_COMPARED}
        final = {f"final/{name}": metrics[name] for name in FINAL if metrics[name] is not None}
        log_comparison(trainer, compared, final)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test" and self.evaluation:  # by now the progress bar has left the terminal
            Console().print(self.evaluation.table())
            settings = cast(CastingDataModule, trainer.datamodule).hparams  # type: ignore[attr-defined]
            learnt = trainer.global_step > 0  # and not what is only judged
            if learnt and (found := self.evaluation.validation) and (line := advice(found, settings)):
                print(line)
