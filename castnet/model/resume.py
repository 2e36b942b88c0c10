"""A run that goes on after it was stopped ends as if nothing had been."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from yaml import YAMLError

from castnet.errors import UserError
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import CastingClassifier

# What is found in the images where it is None.
FOUND = {"image_size", "shift", "zoom", "turns", "rotation", "flip", "views", "anywhere"}
# Of the Trainer's settings: what is learnt, with which numbers, and what is judged; and each if nothing is said.
TRAINS = {
    "accumulate_grad_batches": 1,
    "fast_dev_run": False,
    "gradient_clip_algorithm": None,
    "gradient_clip_val": None,
    "limit_test_batches": "1.0",  # all of them, where 1 is one
    "limit_train_batches": "1.0",
    "limit_val_batches": "1.0",
    "max_steps": -1,
    "overfit_batches": 0.0,
    "precision": "32-true",
}
SPELT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
# Where things lie, how fast they come, what has had its effect, and what calibration changes.
MAY_CHANGE = {"root", "cache_dir", "num_workers", "protocol", "start", "temperature", "threshold", "defective_from"}


class RandomState(Callback):
    """Keeps in checkpoints what shuffling, augmentation and dropout draw from.

    A resumed run then draws the numbers that the stopped one would have drawn; of several processes, what the first
    would have drawn, see `castnet.processes.share_random_state`.
    """

    def __init__(self) -> None:
        self.resumed: dict[str, Any] = {}
        self.processes = 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.processes = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors alone, which load with `weights_only=True`."""
        version, words, gauss = random.getstate()
        numpy_state = np.random.get_state(legacy=False)
        return {
            "python": [version, list(words), gauss],
            "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "processes": self.processes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's state.

        Raises:
            UserError: the run was begun by another number of processes, which made batches and a schedule of theirs.
        """
        begun = state_dict.get("processes", self.processes)  # earlier checkpoints do not say
        if begun != self.processes:
            raise UserError(
                f"trainer.devices: the run was begun by {begun} in all, and would go on with {self.processes}; resume "
                "it with its own overrides, which stand in its .hydra/overrides.yaml"
            )
        self.resumed = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for config in trainer.lr_scheduler_configs if self.resumed else []:
            made_for, planned = getattr(config.scheduler, "total_steps", None), trainer.estimated_stepping_batches
            if made_for not in (None, planned):
                raise UserError(
                    f"ckpt_path={trainer.ckpt_path}: its one-cycle schedule was made for {made_for} steps, and this "
                    f"run has {planned:.0f}; it is of another run: go on from the run's own checkpoint, or train anew"
                )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Pictures and graphs have been drawn by now, which takes random numbers too.
        if self.resumed:
            version, words, gauss = self.resumed["python"]
            random.setstate((version, tuple(words), gauss))
            np.random.set_state(self.resumed["numpy"])
            torch.set_rng_state(self.resumed["torch"])
            if len(self.resumed["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self.resumed["cuda"])
            # The loader's iterator draws a seed when it is made: here before this hook, in a run that goes on after it.
            torch.empty((), dtype=torch.int64).random_()
        self.resumed = {}


def require_resumable(ckpt_path: Path, run: Path, max_epochs: int, settings: Mapping[str, Any]) -> int:
    """Refuse a checkpoint that training cannot go on from, before time is spent.

    Args:
        ckpt_path: the checkpoint.
        run: folder of the run that is to go on, where Hydra wrote how it was begun.
        max_epochs: how many epochs it is to have in the end.
        settings: of `data`, `model`, `trainer` and `threshold` it is to go on with; what is None there is found in the
            images, or left out.

    Returns:
        How many epochs the run has in the end: `max_epochs` or, where early stopping ended it, those that it has.

    Raises:
        UserError: it is no checkpoint of castnet's training or of another run, is calibrated, was begun with other
            settings, counts steps, or its learning rate follows a schedule made for another number of epochs.
    """
    load_classifier(ckpt_path)
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    if not ckpt_path.resolve().is_relative_to(run.resolve()):
        raise UserError(
            f"ckpt_path={ckpt_path}: belongs to another run than {run}; go on in its own folder with hydra.run.dir=RUN"
        )
    if checkpoint.get("finished"):
        raise UserError(f"ckpt_path={ckpt_path}: is calibrated, its run has ended; go on from last.ckpt beside it")
    begun = {"data": checkpoint.get("datamodule_hyper_parameters", {}), "model": checkpoint["hyper_parameters"]}
    _require_unchanged(ckpt_path, begun, settings)
    try:
        done, schedules = checkpoint["epoch"] + 1, checkpoint["lr_schedulers"]
        files = [file for state in checkpoint["callbacks"].values() for file in _files(state)]
        stopping = [state for state in checkpoint["callbacks"].values() if "patience" in state]
        stopped = any(state["wait_count"] >= state["patience"] for state in stopping)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"ckpt_path={ckpt_path}: cannot be resumed ({error!r})") from error
    if any(".." in Path(file).parts for file in files):
        raise UserError(f"ckpt_path={ckpt_path}: cannot be resumed (it names files outside its run)")
    try:
        config = OmegaConf.load(run / ".hydra" / "config.yaml")
        planned, begun = config.trainer.max_epochs, {"trainer": TRAINS | _said(config.trainer)}
        said = (OmegaConf.select(config, "threshold") or {}).items()
        rule = {str(key): value for key, value in said if not str(key).startswith("_")}
    except (OSError, YAMLError, AttributeError) as error:
        raise UserError(f"ckpt_path={ckpt_path}: how its run was begun cannot be read ({error})") from error
    _require_unchanged(ckpt_path, begun, {"trainer": TRAINS | _said(settings["trainer"])})
    # No rule is one that says nothing.
    chosen = settings["threshold"] or {}
    _require_unchanged(ckpt_path, dict.fromkeys(chosen) | rule, dict.fromkeys(rule) | chosen, "threshold.")
    if (steps := settings["trainer"].get("max_steps", -1)) != -1:
        raise UserError(
            f"ckpt_path={ckpt_path}: its run counts steps (trainer.max_steps={steps}), and Lightning does not go on "
            "from the end of an epoch where steps are counted; train anew, or end runs by trainer.max_epochs alone"
        )
    if schedules and planned != max_epochs:
        raise UserError(
            f"ckpt_path={ckpt_path}: its one-cycle schedule was made for {planned} epochs; resume with "
            f"trainer.max_epochs={planned}, or train anew"
        )
    return done if stopped else max_epochs


def _require_unchanged(
    ckpt_path: Path, begun: Mapping[str, Any], settings: Mapping[str, Any], within: str = ""
) -> None:
    if changed := _changed(begun, settings, within):
        key, before, now = changed[0]
        raise UserError(
            f"ckpt_path={ckpt_path}: its run was begun with {key}={before}, and not {now}; resume it with its own "
            "overrides, which stand in its .hydra/overrides.yaml"
        )


def _said(trainer: Mapping[Any, Any]) -> dict[str, Any]:
    """What a Trainer's settings say of what is learnt, each spelt in one way."""
    said = {name: trainer[name] for name in TRAINS if trainer.get(name) is not None}
    if "precision" in said:
        said["precision"] = SPELT.get(str(said["precision"]), said["precision"])
    said |= {name: str(value) for name, value in said.items() if name.startswith("limit_")}
    if said.get("gradient_clip_val") == 0:
        del said["gradient_clip_val"]
    return said


def _changed(begun: Mapping[str, Any], settings: Mapping[str, Any], within: str = "") -> list[tuple[str, Any, Any]]:
    """Each setting that is not what it was: its key, what it was, and what it is."""
    changed = []
    for name in [name for name in settings if name in begun and name not in MAY_CHANGE]:
        before, now = begun[name], settings[name]
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            if name == "optimizer":  # each has settings of its own, and what is not said is as it is by default
                before, now = dict.fromkeys(now) | dict(before), dict.fromkeys(before) | dict(now)
            changed += _changed(before, now, f"{within}{name}.")
        elif before != now and not (now is None and name in FOUND):
            changed.append((f"{within}{name}", before, now))
    return changed


def _files(state: dict[str, Any]) -> list[str]:
    """The files that the state of a ModelCheckpoint names, which it would replace or remove."""
    single = [state.get(name, "") for name in ("best_model_path", "kth_best_model_path", "last_model_path")]
    return [*map(str, single), *map(str, state.get("best_k_models", {}))]


def _where_it_lies(kept: ModelCheckpoint, load: Callable[[dict[str, Any]], None], state: dict[str, Any]) -> None:
    """Load a ModelCheckpoint's state: a run that was moved has its files elsewhere, and Lightning would forget them."""
    if not kept.dirpath or not state["dirpath"]:
        load(state)
        return
    here, there = Path(kept.dirpath), state["dirpath"]

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {moved(file): score for file, score in value.items()}
        is_there = isinstance(value, str) and Path(value).is_relative_to(there)
        return str(here / Path(value).relative_to(there)) if is_there else value

    load({name: moved(value) for name, value in state.items()})


def fit(
    trainer: Trainer, classifier: CastingClassifier, datamodule: LightningDataModule, ckpt_path: str | None
) -> None:
    """Train, from a checkpoint or from the beginning.

    Raises:
        UserError: training diverged, a callback waits for a metric that is not logged, or a setting or the
            checkpoint's state does not fit this run.
    """
    logged = [f"{stage}/{name}" for stage in ("val", "train") for name in ("loss", *classifier.val_metrics.names)]
    # A user's own callbacks may log metrics of their own; Lightning tells of one that is missing after an epoch.
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    own = [
        part for part in (classifier, *callbacks) if not type(part).__module__.startswith(("castnet.", "lightning."))
    ]
    for callback in [] if own else callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in logged:
            raise UserError(f"monitor={monitor}: no epoch logs that; expected one of {', '.join(logged)}")
    for kept in trainer.checkpoint_callbacks:
        if isinstance(kept, ModelCheckpoint):
            kept.load_state_dict = partial(_where_it_lies, kept, kept.load_state_dict)  # type: ignore[method-assign]
    # On SIGTERM Lightning would ask the other processes of the run first, which wait elsewhere for this one.
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    try:
        trainer.fit(classifier, datamodule, ckpt_path=ckpt_path, weights_only=True)
    except UserError:
        raise
    except Exception as error:
        # An epoch's metrics are forgotten when it ends, and then there are those of the Trainer.
        begun = classifier.train_metrics.has_any or trainer.callback_metrics
        # Before the first batch Lightning looks at the Trainer's settings, and restores whatever the checkpoint holds.
        if begun or (ckpt_path is None and not isinstance(error, ValueError | TypeError)):
            raise
        what = f"ckpt_path={ckpt_path}: cannot be resumed" if ckpt_path else "training cannot begin"
        raise UserError(f"{what} with these settings ({error})") from error
