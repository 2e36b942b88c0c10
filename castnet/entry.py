"""What train.py and evaluate.py share: clear errors, and no output folder used twice."""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from lightning import Callback as LightningCallback
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from castnet.data.datamodule import CastingDataModule
from castnet.drawn.weights import shipped
from castnet.errors import UserError, fail, willing
from castnet.files import hold
from castnet.model.classifier import CastingClassifier
from castnet.model.start import Weights, read_weights
from castnet.processes import follow, is_first, is_lost, let_first_speak
from castnet.settings import Count, require
from castnet.settings import check as check_arguments
from castnet.signals import Stopped, obeying_signals

Result = TypeVar("Result")
# What a run can do without: Hydra knows a null among the defaults, but none on the command line.
NULL_GROUPS = {"logger=null": "logger=[]", "threshold=null": "~threshold", "experiment=null": "~experiment"}

# By the metrics of validation: where they are best.
BEST = dict.fromkeys(("loss", "escape_rate", "overkill_rate"), "min") | dict.fromkeys(
    ("accuracy", "auroc", "precision", "recall", "f1"), "max"
)


def guard(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function; a user's mistake becomes one line on standard error and exit code 2.

    Any other exception keeps its traceback and becomes exit code 70. A run that is told to stop ends with 128 + the
    signal's number, as shells and schedulers expect: 130 after SIGINT, 143 after SIGTERM.
    """
    # Makes Hydra raise its own errors, which it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.stdout, sys.stderr = willing(sys.stdout), willing(sys.stderr)
    for argument in sys.argv[1:]:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # as Python reads such bytes
            fail(f"{argument}: holds bytes that are no text, which settings are; name such a folder by a link to it")
    _quieten()
    if not is_first():
        follow()
    sys.argv[1:] = [NULL_GROUPS.get(part, part) for part in sys.argv[1:]]
    try:
        with obeying_signals():
            return function(*args)
    except OverrideParseException as error:
        name = error.override.partition("=")[0]
        fail(
            f"{error.override}: cannot be read as a setting; a value with spaces, brackets or letters of other "
            f"alphabets needs quotes within quotes: '{name}=\"VALUE\"'"
        )
    except (UserError, HydraException, OmegaConfBaseException, MisconfigurationException, OSError) as error:
        let_first_speak()
        fail(error)
    except Stopped as stop:
        if is_first():
            print(f"error: stopped by {signal.Signals(stop.number).name}", file=sys.stderr)
        sys.exit(stop.code)  # and not as one that a guard around this one would tell once more
    except Exception as error:
        let_first_speak()
        if is_lost(error):
            print("error: another process of this run has ended, so this one does", file=sys.stderr)
            sys.exit(os.EX_SOFTWARE)
        if _is_hydras(error):
            fail(error)
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE)


def _is_hydras(error: Exception) -> bool:
    """Whether Hydra raised an error while it composed, or SLURM's launcher: not all are of a kind of their own."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    submitit = sys.modules.get("submitit")
    theirs = [Path(hydra.__file__).parent / "_internal", *(Path(path) for path in getattr(submitit, "__path__", []))]
    return any(map(raised_in.is_relative_to, theirs))


def job(function: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a job of Hydra's under `guard`, unless it is to report to someone else.

    Sweepers and launchers of other making than Hydra's are told of errors as they are, also from other processes.
    """
    chosen = HydraConfig.get()
    choices = {chosen.runtime.choices[group] for group in ("hydra/sweeper", "hydra/launcher")}
    if chosen.mode is RunMode.MULTIRUN and choices != {"basic"}:
        _quieten()  # this may be another process
        return function(cfg)
    return guard(function, cfg)


def _quieten() -> None:
    """Drop what no user of castnet can act on."""
    # Lightning 2.6 calls what PyTorch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    # The settings that a SLURM user edits have the name that the launcher gives to its own.
    warnings.filterwarnings("ignore", message=r"\n'hydra/launcher/submitit_slurm' is validated")
    # The AUROC of a slice with one class; reports leave it out.
    warnings.filterwarnings("ignore", message=r"No (positive|negative) samples in targets")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: " not in record.getMessage()


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


def build(key: str, config: DictConfig, expected: type[Result], **given: Any) -> Result:
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
        config: the model's settings. Where `views` is None they are as many as training images lie in.
        datamodule: after its `setup`.

    Raises:
        UserError: as `build`.
    """
    views = 1 if datamodule.augmentation is None else datamodule.augmentation.views
    settings = settled(config, datamodule.hparams["image_size"], views)
    return build("model", settings, CastingClassifier, class_names=datamodule.folder.classes)


def settled(config: DictConfig, image_size: int, views: int = 1) -> DictConfig:
    """A model's settings with this size of its input, and so many views where they do not say how many."""
    return DictConfig({**config, "image_size": image_size, "views": views if config.views is None else config.views})


def require_best(monitor: str, mode: str) -> None:
    """Refuse a `callbacks.checkpoint.mode` that would keep the worst weights.

    Raises:
        UserError: it is the other one than the monitored metric needs.
    """
    best = BEST.get(monitor.removeprefix("val/").split("/")[0], mode)
    if mode != best:
        raise UserError(f"callbacks.checkpoint.mode={mode}: would keep the worst {monitor}; set it to {best}")


def build_callbacks(config: DictConfig) -> list[LightningCallback]:
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
    built = [build(f"callbacks.{name}", callback, LightningCallback) for name, callback in config.callbacks.items()]
    unwanted = tuple(kind for kind, is_wanted in wanted.items() if not is_wanted)
    return [callback for callback in built if not isinstance(callback, unwanted)]


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
            if error.__cause__ and isinstance(error.__cause__.__cause__, ModuleNotFoundError):
                raise UserError(f"logger={name}: `pip install 'castnet[tracking]'` brings what it needs") from error
            raise
    return loggers


def build_trainer(config: DictConfig, **given: Any) -> Trainer:
    """Build Lightning's Trainer.

    Args:
        config: its settings.
        given: further arguments.

    Raises:
        UserError: as `build`; or training would have no end, or more devices are asked for than there are.
    """
    for name in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch"):  # Lightning divides by them
        require(f"trainer.{name}", config.get(name, 1), Count)
    # The loaders share images among processes; Lightning's samplers would count some twice.
    trainer = build("trainer", config, Trainer, use_distributed_sampler=False, **given)
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
    return trainer


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


class KeepRuns(Callback):
    """Refuse an output folder that is in use, before Hydra writes into it; a resumed run goes on in its own folder.

    No other run gets into the folder as long as this one lasts.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not is_first():  # the first process of the run holds it
            return
        folder = Path(config.hydra.run.dir)
        resumed = config.get("ckpt_path") and config.hydra.job.name == "train"
        own = resumed and Path(str(config.ckpt_path)).resolve().is_relative_to(folder.resolve())
        own = own and (folder / ".hydra").is_dir()
        if own:  # how the run was begun stays written there, whatever this attempt is
            with read_write(config), open_dict(config):
                config.hydra.output_subdir = None
        self._hold("hydra.run.dir", folder, may_be_used=own)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        named = {override.partition("=")[0] for override in config.hydra.overrides.hydra}
        if "hydra.run.dir" in named and "hydra.sweep.dir" not in named:
            fail("hydra.run.dir: does not count for a sweep, such as experiment=new_parts; name hydra.sweep.dir")
        self._hold("hydra.sweep.dir", Path(config.hydra.sweep.dir), may_be_used=False)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # launchers send callbacks to other processes along with a job; what is held stays with this one

    def _hold(self, key: str, folder: Path, may_be_used: bool) -> None:
        # Hydra turns an exception of a callback into a warning, so this exits.
        try:
            self._held = hold(folder)  # until Hydra lets go of this callback
            self._held.__enter__()
            if any(folder.iterdir()) and not may_be_used:
                fail(f"{key}={folder}: already holds something; nothing is overwritten, so name a new folder")
        except UserError as error:
            fail(f"{key}={error}")
        except OSError as error:
            fail(f"{key}={folder}: cannot be written ({error.strerror}); name a new folder")
