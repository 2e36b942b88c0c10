"""Lightning's Trainer of a run, with its callbacks and loggers."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.argparse import _parse_env_variables
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from castnet.build import build
from castnet.errors import UserError
from castnet.model.checkpoint import WholeCheckpoints
from castnet.processes import end_together, ranks, require_alike
from castnet.settings import Count, require

# What all processes of a run are to have alike, and what of it each node may have its own of.
ALIKE = ("data", "model", "seed", "threshold", "trainer")
OWN = ("root", "cache_dir", "groups", "assignment", "slices", "num_workers", "enable_progress_bar", "default_root_dir")
# They set steps or rates while a run trains.
STEERING = (BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder)
GIVEN = ("callbacks", "default_root_dir", "logger", "use_distributed_sampler")  # to the Trainer beside its settings
UNFIT = {
    BackboneFinetuning: "thaws a network's `backbone`, and this one has none; model.lr_decay has its first layers "
    "learn more slowly",
    ModelPruning: "has checkpoints hold masks, with which best.ckpt could not be tested or exported; leave it out",
}
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # in which images of float32 meet the network


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
        UserError: as `build`; or a callback does not fit this network or its schedule, or would have other weights
            tested than those that best.ckpt holds.
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
        for kind, why in UNFIT.items():
            if isinstance(callback, kind):
                raise UserError(f"callbacks.{name}: {why}")
        decay = config.model.get("lr_decay", 1) if config.model.get("start") else 1
        if isinstance(callback, LearningRateFinder) and decay != 1:
            raise UserError(
                f"callbacks.{name}: sets one rate for all layers, and model.lr_decay={decay} has the first ones learn "
                "more slowly; add model.lr_decay=1, or leave the callback out"
            )
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
        UserError: training would have no end or nothing to learn, or an epoch no number by which it is known; a setting
            is out of its bounds or contradicts another; or the environment has settings, which neither a run's
            configuration nor its checkpoints would tell.
    """
    for name, value in vars(_parse_env_variables(Trainer)).items():
        if name not in config and name not in GIVEN:
            raise UserError(
                f"PL_TRAINER_{name.upper()}={value}: the environment sets what a run's configuration is to tell; unset "
                f"it, and add +trainer.{name}={value}"
            )
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
    """Build Lightning's Trainer from a run's whole configuration.

    Args:
        config: the run's.
        given: further arguments.

    Raises:
        UserError: as `build` and `check_trainer`; or more devices are asked for than there are, or numbers that the
            images do not come in, or processes that are no scripts of their own; or the environment tells this process
            that it is one of several, which the settings do not.
    """
    settings = config.trainer
    check_trainer(settings)
    if "default_root_dir" not in settings:
        # On SLURM Lightning takes what it kept there for the run's own: where runs share a folder, of another run.
        given["default_root_dir"] = config.paths.output_dir
    # The loaders share images among processes; Lightning's samplers would count some twice.
    trainer = build("trainer", settings, Trainer, use_distributed_sampler=False, **given)
    trainer.strategy.checkpoint_io = WholeCheckpoints()
    cluster = trainer._accelerator_connector.cluster_environment
    if isinstance(cluster, SLURMEnvironment):
        # By SIGUSR1 Lightning would put the job back, to begin anew, and where it may not, test what it kept by then.
        cluster.auto_requeue = False
    if trainer.precision not in PRECISIONS:
        raise UserError(f"trainer.precision={trainer.precision}: expected one of {', '.join(PRECISIONS)}")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={settings.strategy}: copies what cannot be sent to processes; use trainer=ddp"
        )
    if (told := ranks()) and trainer.world_size == 1:
        raise UserError(
            f"{' '.join(told)}: the environment makes this one of several processes, and "
            f"trainer.devices={trainer.num_devices} one alone; unset it, or use trainer=ddp"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment and not environment.creates_processes_externally and _is_sweep():
        raise UserError(
            f"trainer.devices={settings.devices}: the jobs of a sweep cannot start processes; use one device a job, or "
            "a launcher that starts them, such as hydra/launcher=submitit_slurm"
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
