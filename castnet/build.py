"""What a run is built of, from its configuration, which is checked before time is spent."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from castnet.data.augment import Augmentation
from castnet.data.datamodule import CastingDataModule
from castnet.drawn.weights import shipped
from castnet.errors import UserError
from castnet.model.checkpoint import WholeCheckpoints
from castnet.model.classifier import CastingClassifier
from castnet.model.start import Weights, read_weights
from castnet.processes import end_together, ranks, require_alike
from castnet.settings import Count, require
from castnet.settings import check as check_arguments

Built = TypeVar("Built")

# What all processes of a run are to have alike, and what of it each node may have its own of.
ALIKE = ("data", "model", "seed", "threshold", "trainer")
OWN = ("root", "cache_dir", "groups", "assignment", "slices", "num_workers", "enable_progress_bar", "default_root_dir")
# They set steps or rates while a run trains.
STEERING = (BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # in which images of float32 meet the network


def read_start(start: str | None, image_size: int) -> Weights | None:
    """The weights that a network of an image size starts from: `drawn` are those that ship, None is at random.

    Raises:
        UserError: there is no such file, or it is of another network.
    """
    return None if start is None else read_weights(shipped(image_size) if start == "drawn" else Path(start))


def check(key: str, config: DictConfig, expected: type[Any]) -> None:
    """Compare a config with what its `_target_` takes, before anything is built or time is spent.

    Args:
        key: where the config stands, for messages.
        config: `_target_` and its arguments.
        expected: what the target must be, or be derived from.

    Raises:
        UserError: the target is something else, or has no such argument, or an argument is of another type or range
            than the target's type hints state.
    """
    settings: Any = config
    if OmegaConf.is_config(config):
        settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if not isinstance(settings, dict) or "_target_" not in settings:
        raise UserError(f"{key}={settings}: expected a `_target_` and its arguments")
    name, recursive = settings["_target_"], settings.get("_recursive_", True)
    try:
        target = get_class(name)
    except Exception as error:  # importing a module may raise anything
        raise UserError(f"{key}._target_={name}: cannot be had ({error})") from error
    if not issubclass(target, expected):
        raise UserError(
            f"{key}._target_={name}: expected {expected.__module__}.{expected.__name__}, or one derived of it"
        )
    arguments = {
        str(name): value
        for name, value in settings.items()
        # What Hydra builds beforehand is judged by the constructor.
        if not str(name).startswith("_") and not (recursive and isinstance(value, dict) and "_target_" in value)
    }
    check_arguments(key, target.__init__, arguments)  # type: ignore[misc]


def build(key: str, config: DictConfig, expected: type[Built], **given: Any) -> Built:
    """Instantiate a config after `check`.

    Args:
        key, config, expected: see `check`.
        given: further arguments.

    Raises:
        UserError: as `check`; or the constructor refuses its arguments.
    """
    check(key, config, expected)
    for name in given.keys() & config.keys():
        raise UserError(f"{key}.{name}: is decided elsewhere in the configuration")
    try:
        return instantiate(config, _convert_="all", **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{key}: {error.__cause__ or error}") from error


def build_classifier(config: DictConfig, datamodule: CastingDataModule) -> CastingClassifier:
    """Build the model for the data it is to learn, which decide what its settings leave open.

    Args:
        config: the model's settings. Where `views` and `anywhere` are None they are as training images lie.
        datamodule: after its `setup`.

    Raises:
        UserError: as `build`; or it is of a class of its own that judges otherwise.
    """
    settings = settled(config, datamodule.hparams["image_size"], datamodule.augmentation or Augmentation())
    classifier = build("model", settings, CastingClassifier, class_names=datamodule.folder.classes)
    if type(classifier) is not CastingClassifier and not _judges_as_its_base(classifier):
        raise UserError(
            f"model._target_={config._target_}: judges otherwise than {CastingClassifier.__name__}, as which every "
            "checkpoint is calibrated, tested and exported; only how it learns may differ, or change that class itself"
        )
    return classifier


def _judges_as_its_base(classifier: CastingClassifier) -> bool:
    size = classifier.hparams["image_size"]
    images = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    try:
        base = CastingClassifier(**classifier.hparams)
        base.load_state_dict(classifier.state_dict())
    except (TypeError, RuntimeError):  # it has settings or layers of its own
        return False
    with torch.inference_mode():
        by_base, by_itself = (model.defect_probability(model.eval()(images)) for model in (base, classifier))
    classifier.train()
    return torch.allclose(by_base, by_itself)


def settled(config: DictConfig, image_size: int, augmentation: Augmentation) -> DictConfig:
    """A model's settings with this size of its input and, where they are None, what follows from how images lie."""
    found = {name: getattr(augmentation, name) for name in ("views", "anywhere") if config.get(name, 0) is None}
    return DictConfig({**config, "image_size": image_size} | found)


class _Together(Callback):
    """Keeps the processes of a run together: they train alike, and come to the same places.

    Every process asks for the numbers of an epoch, which are reduced over all of them, before any does more: the
    progress bar asks for them in the first process alone, and would wait there for the others for ever.

    Args:
        config: the run's, as this process was given it.
    """

    def __init__(self, config: DictConfig) -> None:
        self.settings = {name: value for part in ALIKE for name, value in _flat(part, config.get(part))}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            require_alike(self.settings)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics  # noqa: B018


def _flat(name: str, setting: Any) -> Iterator[tuple[str, Any]]:
    """Plain settings by their whole names, without those in which nodes may differ."""
    if not isinstance(setting, DictConfig):
        yield name, OmegaConf.to_container(setting) if OmegaConf.is_config(setting) else setting
    else:
        for key, value in setting.items():
            if str(key) not in OWN:
                yield from _flat(f"{name}.{key!s}", value)


def build_callbacks(config: DictConfig) -> list[Callback]:
    """Build a run's callbacks from its whole configuration, but for those that Lightning's own switches turn off.

    Raises:
        UserError: as `build`.
    """
    wanted = {
        ModelCheckpoint: config.trainer.get("enable_checkpointing", True),
        ProgressBar: config.trainer.get("enable_progress_bar", True),
        ModelSummary: config.trainer.get("enable_model_summary", True),
        LearningRateMonitor: bool(config.get("logger")),  # without one it has nowhere to go
    }
    unwanted = tuple(kind for kind, is_wanted in wanted.items() if not is_wanted)
    built = {name: build(f"callbacks.{name}", callback, Callback) for name, callback in config.callbacks.items()}
    built = {name: callback for name, callback in built.items() if not isinstance(callback, unwanted)}
    averaging = [name for name, callback in built.items() if isinstance(callback, WeightAveraging)]
    for name, callback in built.items():
        if isinstance(callback, STEERING) and config.model.one_cycle_warmup is not None:
            raise UserError(
                f"callbacks.{name}: what it sets the one-cycle schedule would not follow, which is made for the steps "
                "and the rate that are configured; add model.one_cycle_warmup=null, or leave it out"
            )
        if isinstance(callback, StochasticWeightAveraging) and wanted[ModelCheckpoint]:
            raise UserError(
                f"callbacks.{name}: puts its weights in place when training ends, when best.ckpt, which is tested, has "
                "been written without them; use callbacks=[default,weight_averaging]"
            )
        if averaging and isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
            raise UserError(
                f"callbacks.{name}.save_weights_only=true: would keep other weights than the averaged ones of "
                f"callbacks.{averaging[0]}, which are judged; leave it out"
            )
    if len(averaging) > 1:
        raise UserError(
            f"callbacks.{averaging[1]}: averages weights, and so does callbacks.{averaging[0]}, which would take the "
            f"other's average for what is learnt; leave one out, as by ~callbacks.{averaging[0]}"
        )
    return [_Together(config), *built.values()]


def build_loggers(config: DictConfig) -> list[Logger]:
    """Build a run's loggers from its whole configuration: several, one or none.

    Raises:
        UserError: as `build`; or the package that a logger stands on is not installed.
    """
    loggers = []
    for name, logger in (config.get("logger") or {}).items():
        try:
            loggers.append(build(f"logger.{name}", logger, Logger))  # type: ignore[type-abstract]
        except UserError as error:
            missing = error.__cause__ and error.__cause__.__cause__
            # What is missing by the target's own name was never installed by anything: it is misspelt.
            if isinstance(missing, ModuleNotFoundError) and not (
                missing.name and f"{logger.get('_target_')}.".startswith(f"{missing.name}.")
            ):
                raise UserError(f"logger={name}: `pip install 'castnet[tracking]'` brings what it needs") from error
            raise
    return loggers


def check_trainer(config: DictConfig) -> None:
    """Refuse settings of Lightning's Trainer with which nothing could be trained, whatever the machine.

    Raises:
        UserError: training would have no end, or an epoch no number by which it is known.
    """
    for name in ("max_epochs", "accumulate_grad_batches"):  # Lightning divides by them
        require(f"trainer.{name}", config.get(name, 1), Count)
    require("trainer.check_val_every_n_epoch", config.get("check_val_every_n_epoch", 1), Count | None)
    for name in ("limit_train_batches", "max_steps"):
        if config.get(name) == 0:
            raise UserError(
                f"trainer.{name}=0: leaves nothing to learn; expected at least one batch; evaluate.py judges alone"
            )
    require("trainer.gradient_clip_val", config.get("gradient_clip_val"), Annotated[float, Field(ge=0)] | None)
    require("trainer.min_epochs", config.get("min_epochs"), Annotated[int, Field(ge=0)] | None)
    if config.get("barebones"):
        raise UserError("trainer.barebones=true: nothing is logged, by which the best epoch is known; leave it out")
    if config.get("val_check_interval") == 0:
        raise UserError("trainer.val_check_interval=0: expected batches, from 1 on, or a share of an epoch")
    if (least := config.get("min_epochs") or 0) > config.max_epochs:
        raise UserError(f"trainer.min_epochs={least}: expected at most trainer.max_epochs={config.max_epochs}")


def build_trainer(config: DictConfig, **given: Any) -> Trainer:
    """Build Lightning's Trainer.

    Args:
        config: its settings.
        given: further arguments.

    Raises:
        UserError: as `build` and `check_trainer`; or more devices are asked for than there are, or numbers that the
            images do not come in, or processes that are no scripts of their own; or the environment tells this process
            that it is one of several, which the settings do not.
    """
    check_trainer(config)
    # The loaders share images among processes; Lightning's samplers would count some twice.
    trainer = build("trainer", config, Trainer, use_distributed_sampler=False, **given)
    trainer.strategy.checkpoint_io = WholeCheckpoints()
    if trainer.precision not in PRECISIONS:
        raise UserError(f"trainer.precision={trainer.precision}: expected one of {', '.join(PRECISIONS)}")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(f"trainer.strategy={config.strategy}: copies what cannot be sent to processes; use trainer=ddp")
    if (told := ranks()) and trainer.world_size == 1:
        raise UserError(
            f"{' '.join(told)}: the environment makes this one of several processes, and "
            f"trainer.devices={trainer.num_devices} one alone; unset it, or use trainer=ddp"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment and not environment.creates_processes_externally and _is_sweep():
        raise UserError(
            f"trainer.devices={config.devices}: the jobs of a sweep cannot start processes; use one device a job, or a "
            "launcher that starts them, such as hydra/launcher=submitit_slurm"
        )
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:  # each would be a process
        raise UserError(
            f"trainer.devices={trainer.num_devices}: expected at most {cores}, the processors of this machine"
        )
    if trainer.world_size > 1:
        end_together()
    return trainer


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
