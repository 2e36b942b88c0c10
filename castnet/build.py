"""A config as the object that it describes, once its settings are found to be such as that takes."""

import inspect
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from castnet.data.augment import Augmentation
from castnet.data.datamodule import CastingDataModule
from castnet.drawn.weights import shipped
from castnet.errors import UserError
from castnet.model.classifier import CastingClassifier
from castnet.model.start import Weights, read_weights
from castnet.settings import check as check_arguments

Built = TypeVar("Built")


def read_start(start: str | None, image_size: int) -> Weights | None:
    """The weights that a network of an image size starts from: `drawn` are those that ship, None is at random.

    Raises:
        UserError: there is no such file, or it is of another network.
    """
    return None if start is None else read_weights(shipped(image_size) if start == "drawn" else Path(start))


def check(key: str, config: DictConfig, expected: type[Any], *later: str) -> None:
    """Compare a config with what its `_target_` takes, before anything is built or time is spent.

    Args:
        key: where the config stands, for messages.
        config: `_target_` and its arguments.
        expected: what the target must be, or be derived from.
        later: names of arguments that are added when it is built.

    Raises:
        UserError: the target is something else, or has no such argument, or lacks one, or an argument is of another
            type or range than the target's type hints state.
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
    own = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    for parameter in list(inspect.signature(target.__init__).parameters.values())[1:]:  # type: ignore[misc]
        needed = parameter.kind in own and parameter.default is parameter.empty
        if needed and parameter.name not in (*settings, *later) and "_args_" not in settings:
            raise UserError(f"{key}.{parameter.name}: is missing, and {name} needs it; give it a value")


def build(key: str, config: DictConfig, expected: type[Built], **given: Any) -> Built:
    """Instantiate a config after `check`.

    Args:
        key, config, expected: see `check`.
        given: further arguments.

    Raises:
        UserError: as `check`; or the constructor refuses its arguments.
    """
    check(key, config, expected, *given)
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
