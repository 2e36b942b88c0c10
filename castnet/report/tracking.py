"""What every logger of a run is told, each in its own way, beside the scalars and settings that Lightning logs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from castnet.errors import UserError
from castnet.processes import is_first

# What Lightning leaves of a metric's name for MLflow.
MLFLOW = re.compile("[a-zA-Z0-9_. -]+")


@contextmanager
def connected(trainer: Trainer, class_names: Sequence[str]) -> Iterator[None]:
    """Have every logger begin its run, before time is spent on what it could not keep, and W&B's end with the block.

    W&B would otherwise write what the next job of this process logs, as in a sweep, into the same run.

    Raises:
        UserError: its store or server does not answer, wants an account, or takes no metrics of such classes.
    """
    for logger in trainer.loggers if is_first() else []:
        if isinstance(logger, MLFlowLogger) and (odd := [name for name in class_names if not MLFLOW.fullmatch(name)]):
            raise UserError(
                f"logger=mlflow: MLflow has no metrics of a class called {odd[0]}, only of letters from a to z, "
                "digits, spaces and _ . -; rename its folder, or choose another logger"
            )
        try:
            getattr(logger, "experiment", None)
        except Exception as error:  # each of them has its own
            raise UserError(f"logger={type(logger).__name__}: cannot begin a run ({error})") from error
    failed = 1
    try:
        yield
        failed = 0
    finally:
        for logger in trainer.loggers if is_first() else []:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=failed)


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """The TensorBoard writer, if the run logs to TensorBoard."""
    writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return cast(SummaryWriter, writers[0]) if writers else None


def log_picture(trainer: Trainer, name: str, png: bytes, step: int = 0) -> None:
    """Hand a picture, a PNG file, to every logger; the CSV logger, which knows none, gets it beside its table."""
    if not trainer.is_global_zero:
        return
    image = Image.open(BytesIO(png))
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # The file as it is: SummaryWriter.add_image would encode the pixels anew.
            shown = Summary.Image(
                height=image.height, width=image.width, colorspace=len(image.mode), encoded_image_string=png
            )
            summary = Summary(value=[Summary.Value(tag=name, image=shown)])
            logger.experiment._get_file_writer().add_summary(summary, step)  # which opens it anew once it was closed
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, f"{name}-{step}.png")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [image])
        elif isinstance(logger, CSVLogger):
            file = Path(logger.log_dir) / f"{name}-{step}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png)


def log_comparison(trainer: Trainer, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Hand every logger what runs are compared by, settings beside final metrics.

    Args:
        trainer: the run's.
        settings: hyper-parameters. All but TensorBoard, whose HParams tab wants both at once, have those of the model
            and the data from Lightning already, and some refuse what calibration has changed since; they are told of
            the Trainer's alone.
        metrics: by name.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(settings), dict(metrics))
        else:
            logger.log_hyperparams({"max_epochs": trainer.max_epochs})
            logger.log_metrics(dict(metrics))
