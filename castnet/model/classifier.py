"""The LightningModule: how the network is trained and judged."""

import math
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from lightning import LightningModule
from pydantic import AfterValidator, Field
from torch import Tensor

from castnet.errors import UserError
from castnet.model.familiarity import Familiarity
from castnet.model.heatmap import logits_and_evidence
from castnet.model.metrics import CastingMetrics
from castnet.model.network import CastingCNN
from castnet.model.optimizer import make_optimizer, tried
from castnet.model.views import chosen, turned, turned_back
from castnet.processes import count_everywhere
from castnet.settings import ImageSize, Positive, Rate, Text, check

Batch = tuple[Tensor, Tensor]
VERDICTS = ("good", "defective", "doubtful", "unfamiliar")  # the last two are two reasons to be unsure


class CastingClassifier(LightningModule):
    """The notebook's CNN with binary cross-entropy; its sigmoid is the probability of class 1.

    All arguments are plain values and stand in the checkpoint, which loads with `weights_only=True`.

    Args:
        class_names: the two classes, in ImageFolder's order.
        defect_class: the one of them that is the defect.
        image_size: side of the input in pixels.
        dropout: share of the dense units dropped in training.
        mean, std: the network sees (pixel - mean) / std, with pixels in [0, 1].
        lr: learning rate; with a one-cycle schedule, its peak.
        optimizer: `_target_`, one of `castnet.model.optimizer.OPTIMIZERS`, and its arguments, without parameters and
            learning rate.
        one_cycle_warmup: share of the steps in which the one-cycle schedule (Smith & Topin, arXiv:1708.07120) rises,
            while momentum (Adam's first beta), if `optimizer` does not name it, falls from 0.95 to 0.85, to rise again
            later; None keeps the learning rate constant.
        temperature: logits are divided by it before the sigmoid (Guo et al., arXiv:1706.04599); training leaves them as
            they are, calibration on validation data sets it.
        threshold: a casting is called defective if P(defect) reaches it.
        defective_from: between the threshold and this P(defect) a casting is doubtful; None doubts none.
        start: what the network starts from, see `castnet.model.start`; it is only kept here for the record.
        views: over how many ways to lie the logits are averaged, each for as much work again: 1, 2 (mirrored too),
            4 (and upside down) or 8 (and turned by quarters). Training sees one view, and so does the validation after
            each epoch.
        lr_decay: with a start, a layer's learning rate is that of the next one, nearer to the output, times this
            (discriminative fine-tuning, Howard & Ruder, arXiv:1801.06146): what the first layers know holds for any
            casting. 1 trains all layers alike.
        anywhere: whether a defect looks alike wherever it lies, see `castnet.model.network`.
    """

    def __init__(
        self,
        *,
        class_names: Annotated[list[str], Field(min_length=2, max_length=2)],
        defect_class: str,
        image_size: ImageSize,
        dropout: Annotated[float, Field(ge=0, lt=1)],
        mean: Rate,
        std: Annotated[float, Field(ge=1e-3, le=1)],
        lr: Positive,
        optimizer: Annotated[dict[str, Any], AfterValidator(tried)],
        one_cycle_warmup: Annotated[float, Field(ge=0, lt=1)] | None,
        temperature: Positive,
        threshold: Rate,
        # Checkpoints of castnet 0.1.0 lack these.
        start: Text | None = None,
        views: Literal[1, 2, 4, 8] = 1,
        lr_decay: Annotated[float, Field(gt=0, le=1)] = 1,
        defective_from: Rate | None = None,
        anywhere: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check("model", CastingClassifier.__init__, self.hparams)
        self.network = CastingCNN(image_size, dropout, anywhere).to(memory_format=torch.channels_last)
        self.train_metrics, self.val_metrics, self.test_metrics = (
            CastingMetrics(class_names, defect_class, threshold, together=True) for _ in range(3)
        )
        self.validation: dict[str, float] | None = None  # the last validation metrics; checkpoints keep them
        # Of a calibrated checkpoint: its last bias as it was trained, without the offset; float32 (1,).
        self.trained_bias: Tensor | None = None
        # What is familiar, and P(defect) and unfamiliarity of some validation images, known once training has ended.
        self.familiarity: Familiarity | None = None
        self.reference: dict[str, list[float]] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits of class 1, float32 (n,), from grey images, float32 (n, 1, image_size, image_size) in [0, 1]."""
        return self.logits(images, 1 if self.training else self.hparams["views"])

    def logits(self, images: Tensor, views: int) -> Tensor:
        """What forward returns, of so many views, whatever `views` the module has."""
        logits = [self.network(self._standardised(turned(images, view))).float() for view in chosen(views)]
        return torch.stack(logits).mean(0) if views > 1 else cast(Tensor, logits[0])

    def _standardised(self, images: Tensor) -> Tensor:
        images = ((images - self.hparams["mean"]) / self.hparams["std"]).expand(-1, 3, -1, -1)
        # Three channels in memory make the first convolution faster than three views of one.
        return images.contiguous(memory_format=torch.channels_last)

    def explain(self, images: Tensor, explained: Tensor) -> tuple[Tensor, Tensor]:
        """What forward returns, and what every place of some of the images says for the defect.

        Args:
            images: float32 (n, 1, image_size, image_size) in [0, 1]; the module must be in evaluation mode.
            explained: which of them to explain, int64 (k,).

        Returns:
            Logits of class 1, float32 (n,), and evidence for the defect, float32 (k, cells, cells), in logits; see
            `castnet.model.heatmap`.
        """
        views, n, k = self.hparams["views"], images.shape[0], explained.shape[0]
        # All views as one batch: a graph that held the network eight times would take longer to export and to load.
        everything = self._standardised(torch.cat([turned(images, view) for view in chosen(views)]))
        logits, evidence = logits_and_evidence(
            self.network, everything, torch.cat([explained + i * n for i in range(views)])
        )
        lying = [turned_back(evidence[i * k : (i + 1) * k], view) for i, view in enumerate(chosen(views))]
        evidence = torch.stack(lying).mean(0)
        return logits.unflatten(0, (views, n)).mean(0), evidence if self.means_defect else -evidence

    @property
    def means_defect(self) -> bool:
        """Whether the sigmoid is the probability of the defect, and not that of a good part."""
        return self.test_metrics.defect == 1

    @property
    def offset(self) -> float:
        """What calibration added to the logits of the defect; nothing before it."""
        if self.trained_bias is None:
            return 0.0
        added = (self.network.bias.detach() - self.trained_bias.to(self.device)).item()
        return added if self.means_defect else -added

    def defect_probability(self, logits: Tensor) -> Tensor:
        """P(defect), float32 (n,), from logits of class 1, float32 (n,)."""
        logits = logits / self.hparams["temperature"]
        return torch.sigmoid(logits if self.means_defect else -logits)

    def unfamiliarity(self, images: Tensor) -> Tensor:
        """How unlike the training images each image is, float32 (n,); see `Familiarity`, and 0 where that is not known.

        Args:
            images: as for forward.
        """
        return images.new_zeros(len(images)) if self.familiarity is None else self.familiarity(images)

    def verdicts(self, p_defect: Tensor, unfamiliarity: Tensor) -> Tensor:
        """Which of `VERDICTS` each image gets, int64 (n,); a number that is not finite never makes a casting good.

        Args:
            p_defect: float32 (n,).
            unfamiliarity: float32 (n,), unfamiliar from 1 on.
        """
        threshold, defective_from = self.hparams["threshold"], self.hparams["defective_from"]
        familiar = unfamiliarity < 1
        verdicts = torch.where(familiar, 2, 3)
        surely = p_defect >= (threshold if defective_from is None else defective_from)
        verdicts = torch.where(familiar & surely, 1, verdicts)
        return torch.where(familiar & (p_defect < threshold), 0, verdicts)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self.logits(images, self.hparams["views"] if stage == "test" else 1)
        loss = F.binary_cross_entropy_with_logits(logits, labels.float())
        if self._world == 1:  # else gradients carry it to the weights of every process, which all end together
            self._require_finite(f"{stage} loss is", loss)
        metrics = cast(CastingMetrics, getattr(self, f"{stage}_metrics"))
        p_defect = self.defect_probability(logits.detach())
        metrics.update(p_defect, labels)
        n, several = len(labels), self._world > 1
        if several:  # Lightning rounds the mean of whole numbers down, so that losses would come out too high
            n = float(n)  # type: ignore[assignment]
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=n, sync_dist=several)
        return loss, p_defect

    @property
    def _world(self) -> int:
        """How many processes train together."""
        return self.trainer.world_size if self._trainer else 1

    def _require_finite(self, name: str, *values: Tensor) -> None:
        """End training before a number that means nothing becomes a verdict."""
        if not all(value.isfinite().all() for value in values):
            when = "" if self.trainer.testing else f"epoch {self.current_epoch + 1}: "
            raise UserError(f"{when}{name} not finite; lower model.lr={self.hparams['lr']} and train anew")

    def _log_metrics(self, stage: str) -> dict[str, float]:
        metrics = cast(CastingMetrics, getattr(self, f"{stage}_metrics"))
        values = metrics.compute()
        for name, value in values.items():
            if math.isfinite(value):
                self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy", sync_dist=self._world > 1)
        with torch.inference_mode(False):  # which Trainer.validate and test are in, and a fit after them is not
            metrics.reset()
        return values

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, _ = self._step(batch, "train")
        if self._world > 1:
            # Processes' gradients are averaged as if each had as many images, which those of a last batch have not.
            loss = loss * len(batch[1]) * self._world / count_everywhere(len(batch[1]), loss.device)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"p_defect": self._step(batch, "test")[1], "unfamiliarity": self.unfamiliarity(batch[0])}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """P(defect), float32 (n,)."""
        return self.defect_probability(self(batch[0]))

    def on_validation_epoch_start(self) -> None:
        self._require_finite("weights are", *self.network.parameters())

    def on_train_epoch_end(self) -> None:
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        values = self._log_metrics("val")
        if not self.trainer.sanity_checking:
            self.validation = values

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"validation": self.validation, "finished": False}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.validation, self.reference = checkpoint["validation"], checkpoint.get("reference")
        self.trained_bias = checkpoint.get("trained_bias")
        if familiar := checkpoint.get("familiarity"):
            self.familiarity = Familiarity(**familiar)

    def configure_optimizers(self) -> Any:
        by_rate: dict[float, list[Tensor]] = {}
        lr, decay = self.hparams["lr"], self.hparams["lr_decay"] if self.hparams["start"] else 1
        for layer in reversed([list(layer.parameters()) for layer in self.network.layers]):
            if layer:
                by_rate.setdefault(lr, []).extend(layer)
                lr *= decay
        groups = [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
        optimizer = make_optimizer(self.hparams["optimizer"], groups, self.hparams["lr"])
        if self.hparams["one_cycle_warmup"] is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        momentum = {"momentum", "betas"} & optimizer.defaults.keys()
        try:
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                list(by_rate),
                steps,
                pct_start=float(self.hparams["one_cycle_warmup"]),
                cycle_momentum=bool(momentum - self.hparams["optimizer"].keys()),
            )
        except ZeroDivisionError as error:  # PyTorch cannot rise within the first step
            share = self.hparams["one_cycle_warmup"]
            raise UserError(
                f"model.one_cycle_warmup={share}: is one of this run's {steps} steps, in which no rate can rise; "
                "expected 0, null, a larger share, or more steps (trainer.max_epochs)"
            ) from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
