"""What train.py and evaluate.py share: clear errors, and no output folder used twice."""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from castnet.errors import UserError, fail

Result = TypeVar("Result")


def guard(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function; a user's mistake becomes one line on standard error and exit code 2.

    Any other exception keeps its traceback and becomes exit code 70. A run that is told to stop ends with 128 + the
    signal's number, as shells and schedulers expect: 130 after SIGINT, 143 after SIGTERM.
    """
    # Makes Hydra raise its own errors, which it would otherwise print over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _quieten()
    try:
        with _obeying_signals():
            return function(*args)
    except (UserError, HydraException, OmegaConfBaseException, MisconfigurationException) as error:
        fail(error)
    except _Stopped as stop:
        print(f"error: stopped by {signal.Signals(stop.number).name}", file=sys.stderr)
        raise
    except Exception:
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE)


class _Stopped(SystemExit):
    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def _obeying_signals() -> Iterator[None]:
    """Stop at once when told to: Lightning alone would end a stopped run as if it were done.

    Signals that whoever started this process had it ignore, as `nohup` does, stay ignored.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    obeyed = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in obeyed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quieten() -> None:
    """Drop what no user of castnet can act on."""
    # Lightning 2.6 calls what PyTorch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    # The AUROC of a slice with one class; reports leave it out.
    warnings.filterwarnings("ignore", message=r"No (positive|negative) samples in targets")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: " not in record.getMessage()


def build(key: str, config: DictConfig, **given: Any) -> Any:
    """Instantiate a config's `_target_` after checking its values against the type hints of the constructor.

    Args:
        key: where the config stands, for messages.
        config: `_target_` and its arguments; those that have a `_target_` of their own are checked and handed over.
        given: further arguments.

    Raises:
        UserError: a value has another type than the constructor expects, or is refused by it.
    """
    _check_types(key, config)
    try:
        return instantiate(config, _recursive_=False, _convert_="all", **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise


def _check_types(key: str, config: DictConfig) -> None:
    hints = get_type_hints(get_class(config["_target_"]).__init__)  # type: ignore[misc]
    for name, value in config.items():
        if isinstance(value, DictConfig) and "_target_" in value:
            _check_types(f"{key}.{name!s}", value)
        elif name in hints and not _fits(value, hints[name]):
            expected = getattr(hints[name], "__name__", str(hints[name]))
            raise UserError(f"{key}.{name!s}={value}: expected {expected}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the hinted type; hints that are not plain numbers and strings are not judged."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool, NoneType) else True


class KeepRuns(Callback):
    """Refuse an output folder that is in use, before Hydra writes into it; a resumed run goes on in its own folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.run.dir)
        resumed = config.get("ckpt_path") and config.hydra.job.name == "train"
        if not (resumed and Path(config.ckpt_path).resolve().is_relative_to(folder.resolve())):
            _refuse_used(folder, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _refuse_used(Path(config.hydra.sweep.dir), "hydra.sweep.dir")


def _refuse_used(folder: Path, key: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        # Hydra turns an exception of a callback into a warning, so this exits.
        fail(f"{key}={folder}: already holds something; nothing is overwritten, so name a new folder")
