"""What is refused before time is spent."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from castnet.build import build, check, read_start, settled
from castnet.data.augment import Augmentation
from castnet.data.datamodule import CastingDataModule
from castnet.data.subsets import draws_test
from castnet.errors import UserError
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import CastingClassifier
from castnet.model.resume import SPELT, require_resumable
from castnet.report.threshold import ThresholdRule
from castnet.settings import SMALLEST_IMAGE, Seed, Text, require
from castnet.trainer import build_callbacks, check_trainer

EVALUATION = ("ckpt_path", "data", "paths", "report", "trainer")  # the settings of an evaluation
# By metric, of validation or of training: where it is best.
BEST = dict.fromkeys(("loss", "escape_rate", "overkill_rate"), "min") | dict.fromkeys(
    ("accuracy", "auroc", "precision", "recall", "f1"), "max"
)


def prepare(config: DictConfig) -> tuple[ThresholdRule | None, CastingDataModule]:
    """The rule for the threshold, if there is one, and the data of a run whose settings are in order by themselves.

    The model is built when its classes are known, and what else may have to be found in the folder.

    Args:
        config: the run's, as Hydra composes it.

    Raises:
        UserError: a setting is not.
    """
    require("seed", config.seed, Seed)
    require("ckpt_path", config.ckpt_path, Text | None)
    rule = build("threshold", config.threshold, ThresholdRule) if config.get("threshold") else None
    datamodule = build("data", config.data, CastingDataModule)
    image_size = config.data.image_size or SMALLEST_IMAGE
    check("model", settled(config.model, image_size, Augmentation()), CastingClassifier, "class_names")
    read_start(config.model.start, image_size)
    require_best(config.get("callbacks"))
    check_trainer(config.trainer)
    check("trainer", config.trainer, Trainer)
    require_clipping(config)
    if config.model.start not in (None, "drawn") and draws_test(datamodule.hparams):
        datamodule.hparams["protocol"] += f" All began from {config.model.start}, which may have seen any of them."
    return rule, datamodule


def prepare_evaluation(config: DictConfig) -> CastingClassifier:
    """The network that an evaluation is of, whose settings are in order by themselves.

    Args:
        config: the evaluation's, as Hydra composes it.

    Raises:
        UserError: a setting is not, or the checkpoint is none, see `castnet.model.checkpoint.load_classifier`.
    """
    if unknown := [str(key) for key in config if key not in (*EVALUATION, "hydra")]:
        raise UserError(
            f"{unknown[0]}: an evaluation has no such setting, but {', '.join(EVALUATION)}; how the network was "
            "trained and where it cuts stand in its checkpoint"
        )
    require("ckpt_path", config.ckpt_path, Text)
    require("report.robustness", OmegaConf.select(config, "report.robustness"), bool)
    return load_classifier(Path(config.ckpt_path))


def epochs_to_have(config: DictConfig, datamodule: CastingDataModule, rule: ThresholdRule | None) -> int:
    """How many epochs a run has in the end that goes on from `ckpt_path`.

    Raises:
        UserError: it cannot, see `castnet.model.resume.require_resumable`.
    """
    of = {key: OmegaConf.to_container(config[key], resolve=True) for key in ("model", "trainer")}
    settings = {"data": datamodule.hparams, **of, "threshold": asdict(rule) if rule else None}
    run, planned = Path(config.paths.output_dir), config.trainer.max_epochs
    return require_resumable(Path(config.ckpt_path), run, planned, settings)


def check_jobs(configs: Iterable[DictConfig]) -> None:
    """What `prepare` checks of runs that have not begun, and their folders; what only a run will know is left to it.

    Raises:
        UserError: see `prepare`, or a folder is not as expected.
    """
    divided = set[str]()
    for config in configs:
        with suppress(InterpolationResolutionError):
            _, datamodule = prepare(config)
            within = config.copy()
            within.paths.output_dir = "."  # which only the run will know
            build_callbacks(within)
            for name, logger in (within.get("logger") or {}).items():
                check(f"logger.{name}", logger, Logger)
            own, is_there = config.data.source == "folder", Path(config.data.root).exists()
            # Other machines may have what this one has not.
            here = config.hydra.runtime.choices["hydra/launcher"] == "basic" and (own or is_there)
            if here and (settings := OmegaConf.to_yaml(config.data, resolve=True)) not in divided:
                divided.add(settings)
                datamodule.prepare_data()
                datamodule.divide()


def require_best(callbacks: DictConfig | None) -> None:
    """Refuse callbacks that would keep other weights than the best.

    Raises:
        UserError: none is named `checkpoint`, or it monitors nothing, or `best.ckpt` would be the last of several, or
            have another name, or be written between validations, or the mode of a callback is the other one than the
            metric it monitors needs.
    """
    if callbacks is None or not isinstance(kept := callbacks.get("checkpoint"), DictConfig):
        raise UserError(
            "callbacks: none is named checkpoint, which keeps the best epoch; expected callbacks=default, "
            "or a list that begins with it, such as 'callbacks=[default,early_stopping]'"
        )
    require("callbacks.checkpoint.monitor", kept.get("monitor"), Text)
    if (filename := kept.get("filename")) != "best":
        raise UserError(f"callbacks.checkpoint.filename={filename}: expected best, by which other commands find it")
    if (save_top_k := kept.get("save_top_k", 1)) != 1:
        raise UserError(
            f"callbacks.checkpoint.save_top_k={save_top_k}: expected 1, since best.ckpt holds the best epoch alone; "
            "for none set +trainer.enable_checkpointing=false"
        )
    for key in ("every_n_train_steps", "train_time_interval"):
        if kept.get(key):
            raise UserError(
                f"callbacks.checkpoint.{key}={kept[key]}: would keep weights by the score of earlier ones; leave it "
                "out, or validate more often by trainer.val_check_interval"
            )
    for name, callback in callbacks.items():
        # Others' callbacks may have no mode.
        if isinstance(callback, DictConfig) and (
            name == "checkpoint" or str(callback.get("_target_")).startswith("lightning.")
        ):
            monitor, mode = str(callback.get("monitor")), callback.get("mode", "min")
            best = BEST.get(monitor.partition("/")[2].split("/")[0], mode)
            if mode != best:
                raise UserError(
                    f"callbacks.{name!s}.mode={mode}: would take the worst {monitor} for the best; set it to {best}"
                )


def require_clipping(config: DictConfig) -> None:
    """Refuse to clip gradients where the optimizer's fused step alone knows their scale.

    Raises:
        UserError: it would be asked for.
    """
    precision = str(config.trainer.get("precision"))
    mixed = "mixed" in SPELT.get(precision, precision)
    if mixed and config.trainer.get("gradient_clip_val") and config.model.optimizer.get("fused"):
        raise UserError(
            f"trainer.gradient_clip_val={config.trainer.gradient_clip_val}: a fused optimizer clips nothing in "
            f"trainer.precision={precision}; set model.optimizer.fused=false"
        )


def require_no_point() -> None:
    """Refuse an operating point on the command line that the one chosen on validation images would replace.

    Raises:
        UserError: there is one.
    """
    for word in HydraConfig.get().overrides.task if HydraConfig.initialized() else ():
        if word.lstrip("+").startswith(("model.threshold=", "model.temperature=", "model.defective_from=")):
            raise UserError(f"{word}: validation images decide on that (threshold.*); to keep it, add threshold=null")


def require_a_batch(
    trainer: Trainer, datamodule: CastingDataModule, subsets: Sequence[str] = ("train", "val", "test")
) -> None:
    """Refuse a share of the images that is less than a batch, which Lightning would do later, of test images last.

    Raises:
        UserError: it is.
    """
    for name in subsets:
        limit, loader = getattr(trainer, f"limit_{name}_batches"), getattr(datamodule, f"{name}_dataloader")()
        if isinstance(limit, float) and 0 < limit * len(loader) < 1:
            key = (
                "overfit_batches"
                if name != "test" and getattr(trainer, "overfit_batches", False)
                else f"limit_{name}_batches"
            )
            raise UserError(
                f"trainer.{key}={limit}: is less than one of {len(loader)} batches of {name} images; "
                "expected a whole number of them, or a larger share"
            )


def require_own_folder(config: DictConfig) -> None:
    """Refuse callbacks that would write where other runs have theirs.

    Raises:
        UserError: a callback's folder lies outside the run's.
    """
    own = Path(config.paths.output_dir).resolve()
    for key in (f"{name}.{key}" for name in config.callbacks for key in ("dirpath", "folder")):
        folder = OmegaConf.select(config.callbacks, key)
        if folder and not Path(str(folder)).resolve().is_relative_to(own):
            raise UserError(
                f"callbacks.{key}={folder}: lies outside the run's folder, and only in that is nothing "
                "overwritten; leave it, and name the run's folder by hydra.run.dir"
            )
