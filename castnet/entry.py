"""How train.py and evaluate.py run: clear errors, and no output folder used twice."""

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from torch.distributed import DistNetworkError

from castnet.errors import UserError, fail, or_exit, willing
from castnet.files import hold
from castnet.processes import follow, is_first, is_lost, let_first_speak
from castnet.settings import Text, require
from castnet.signals import obeying_signals

Result = TypeVar("Result")
# What a run can do without: Hydra knows a null among the defaults, but none on the command line.
NULL_GROUPS = {
    "callbacks=null": "callbacks=[]",
    "experiment=null": "~experiment",
    "logger=null": "logger=[]",
    "study=null": "~study",
    "threshold=null": "~threshold",
}


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
    quieten()
    if not is_first():
        follow()
    # Hydra knows the flag of a sweep before or after all settings, but not between them.
    arguments = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    sys.argv[1:] = [NULL_GROUPS.get(argument, argument) for argument in arguments]
    for argument in sys.argv[1:]:
        group, _, choice = argument.partition("=")
        if f"{group}=null" in NULL_GROUPS and re.fullmatch(r"\[(.*,)? *null *(,.*)?\]", choice):
            fail(f"{argument}: null is no member of a list; leave it out, or give it alone")
    told: list[int] = []
    is_outermost = KeepRuns.held is None  # and not around one job of a sweep, whose folder is still to be kept
    try:
        with obeying_signals() as told:
            return function(*args)
    except OverrideParseException as error:
        name, reason = error.override.partition("=")[0], str(error).partition("while evaluating ")[2]
        said = f" ({reason.strip()})" if reason else ""
        fail(
            f"{error.override}: cannot be read as a setting{said}; a value with spaces, brackets or letters of other "
            f'alphabets needs quotes within quotes: \'{name}="VALUE"\', in a sweep \'{name}="A","B"\' without '
            "choice(…), which drops them; for ~ write $HOME"
        )
    except MissingMandatoryValue as error:
        fail(f"{error.full_key}: has no value; give it one, as {error.full_key}=VALUE")
    except (UserError, HydraException, OmegaConfBaseException, MisconfigurationException, OSError) as error:
        let_first_speak()
        fail(error)
    except SystemExit:  # what the signal raised, or what a library such as Ray makes of it
        if not told:
            raise
        if is_first():
            print(f"error: stopped by {signal.Signals(told[-1]).name}", file=sys.stderr)
        sys.exit(128 + told[-1])  # and not as one that a guard around this one would tell once more
    except Exception as error:
        let_first_speak()
        if is_lost(error):
            print("error: another process of this run has ended, so this one does", file=sys.stderr)
            sys.exit(os.EX_SOFTWARE)
        if isinstance(error, DistNetworkError):  # such as of a port that another run listens on
            fail(f"MASTER_ADDR, MASTER_PORT: processes cannot meet there ({str(error).splitlines()[0]}); set others")
        if _is_hydras(error):  # what it asserts says what it expects
            fail(str(error) or traceback.extract_tb(error.__traceback__)[-1].line)
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE)
    finally:
        if is_outermost:
            KeepRuns.let_go()


def _is_hydras(error: Exception) -> bool:
    """Whether Hydra raised an error while it composed, or SLURM's launcher: not all are of a kind of their own."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    submitit = sys.modules.get("submitit")
    own = Path(hydra.__file__).parent
    theirs = [
        own / "_internal",
        own / "core" / "plugins.py",
        *(Path(path) for path in getattr(submitit, "__path__", [])),
    ]
    return any(map(raised_in.is_relative_to, theirs))


def job(function: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a job of Hydra's under `guard`, unless it is to report to someone else.

    Sweepers and launchers of other making than Hydra's are told of errors as they are, also from other processes.
    """
    chosen = HydraConfig.get()
    if chosen.mode is not RunMode.MULTIRUN:
        return guard(function, cfg)
    if {chosen.runtime.choices[group] for group in ("hydra/sweeper", "hydra/launcher")} <= {"basic", "grid"}:
        return guard(_alone, function, cfg)
    quieten()  # this may be another process
    return _alone(function, cfg)


def _alone(function: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a job of a sweep in a folder that no other has: of one that was killed a cluster may still be at work."""
    with hold(Path(cfg.paths.output_dir)) if is_first() else nullcontext():
        return function(cfg)


def quieten() -> None:
    """Drop what no user of castnet can act on."""
    # Lightning 2.6 calls what PyTorch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    # What castnet has in the place of plugins of Hydra's has their names.
    warnings.filterwarnings("ignore", message=r"\n'hydra/launcher/(submitit_slurm|ray)' is validated")
    # The AUROC of a slice with one class; reports leave it out.
    warnings.filterwarnings("ignore", message=r"No (positive|negative) samples in targets")
    # rich in a notebook, which does without its progress bar.
    warnings.filterwarnings("ignore", message='install "ipywidgets" for Jupyter support')
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: " not in record.getMessage()


def _overrides(config: DictConfig, kind: str) -> list[str]:
    """Overrides of the `task` or of `hydra` as they were written: what they refer to may not be there yet."""
    return OmegaConf.to_container(config.hydra.overrides[kind], resolve=False)  # type: ignore[return-value]


def _require_hydras_folder(config: DictConfig) -> None:
    """Refuse an output folder other than Hydra's, which alone is kept from being overwritten."""
    if any(override.lstrip("+").startswith("paths.output_dir=") for override in _overrides(config, "task")):
        fail("paths.output_dir: follows from hydra.run.dir, or hydra.sweep.dir for a sweep; name that folder instead")


def _require_plain_folders(config: DictConfig, swept: bool) -> None:
    """Refuse folders without a name, and what of Hydra's own would have runs lie where nothing or others lie."""
    for name in ("data_dir", "cache_dir", "runs_dir"):
        if name in config.paths:
            require(f"paths.{name}", config.paths[name], Text)
    if config.hydra.job.chdir:
        fail("hydra.job.chdir=true: every path is meant from where you are; leave it out")
    if config.hydra.output_subdir != ".hydra":
        fail("hydra.output_subdir: runs are resumed by what stands in .hydra; leave it out")
    if "/" in str(config.hydra.job.name):
        fail(f"hydra.job.name={config.hydra.job.name}: is what the log's file is called; expected a name without /")
    subdir: str = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[call-overload, index]
    # Overrides may hold slashes.
    if swept and ("hydra.job.num" not in str(subdir) or "/" in str(subdir) or "override_dirname" in str(subdir)):
        fail(
            f"hydra.sweep.subdir={subdir}: expected one folder for each run within hydra.sweep.dir, whose name has "
            "${hydra.job.num} in it, and no / or override_dirname"
        )


def _require_whole_study(config: DictConfig, swept: bool) -> None:
    """Refuse a search space that nothing would search, and a search without a sweep."""
    searching, space = "n_trials" in config.hydra.sweeper, config.hydra.runtime.choices.get("study")
    if (searching or space) and not (searching and swept):
        fail(f"study={space or 'null'}: expected -m hydra/sweeper=optuna beside it, since a study is a sweep")


def _holds_nothing(folder: Path) -> bool:
    """Whether there is nothing but what Hydra leaves of a run that was refused before it began."""
    if not any(folder.iterdir()):
        return True
    if (folder.parent / "multirun.yaml").exists():  # the sweep holds its own folder alone, and may be at work in this
        return False
    return all(
        (path.is_dir() and not path.is_symlink())
        or path.parent.name == ".hydra"
        or path.name == "multirun.yaml"
        or (path.suffix == ".log" and not path.stat().st_size)
        for path in folder.rglob("*")
    )


class KeepRuns(Callback):
    """Refuse an output folder that is in use, before Hydra writes into it; a resumed run goes on in its own folder.

    No other run gets into the folder as long as this one lasts, which `guard` ends: Hydra may keep the callback longer.
    """

    held: ClassVar[ExitStack | None] = None  # what the run under way in this process keeps to itself

    @classmethod
    def let_go(cls) -> None:
        """Leave the folder to others, if one is held."""
        if cls.held:
            cls.held.close()
        cls.held = None

    @or_exit(Exception)
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _require_hydras_folder(config)
        _require_whole_study(config, swept=False)
        if config.hydra.sweeper.get("resume"):
            fail("hydra.sweeper.resume=true: goes on with a sweep; add -m, or go on with one run by ckpt_path")
        if not is_first():  # the first process of the run holds it
            return
        _require_plain_folders(config, swept=False)
        folder = Path(config.hydra.run.dir)
        resumed = config.get("ckpt_path") and "model" in config  # and not one to evaluate
        if resumed and not Path(str(config.ckpt_path)).is_file():
            fail(f"ckpt_path={config.ckpt_path}: no such file; expected a checkpoint such as RUN/checkpoints/last.ckpt")
        own = resumed and Path(str(config.ckpt_path)).resolve().is_relative_to(folder.resolve())
        own = own and (folder / ".hydra").is_dir()
        if own:  # how the run was begun stays written there, whatever this attempt is
            with read_write(config), open_dict(config):
                config.hydra.output_subdir = None
        self._hold("hydra.run.dir", folder, may_be_used=own)

    @or_exit(Exception)
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _require_hydras_folder(config)
        _require_whole_study(config, swept=True)
        _require_plain_folders(config, swept=True)
        named = {override.partition("=")[0] for override in _overrides(config, "hydra")}
        if "hydra.run.dir" in named and "hydra.sweep.dir" not in named:
            fail(
                "hydra.run.dir: does not count for a sweep, such as experiment=new_parts; name hydra.sweep.dir, or "
                "hydra.mode=RUN to go on with one of its runs"
            )
        folder = Path(config.hydra.sweep.dir)
        resumed = config.hydra.sweeper.get("resume", False)
        if resumed not in (False, True):
            fail(f"hydra.sweeper.resume={resumed}: expected true or false")
        if resumed and not (folder / "multirun.yaml").exists():
            fail(f"hydra.sweeper.resume=true: there is no sweep in {folder}; name its folder by hydra.sweep.dir=SWEEP")
        if resumed and "${now:" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)):
            fail("hydra.sweeper.resume=true: hydra.sweep names other folders by now; name them as they are")
        self._hold("hydra.sweep.dir", folder, may_be_used=resumed)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # launchers send callbacks to other processes along with a job; what is held stays with this one

    def _hold(self, key: str, folder: Path, may_be_used: bool) -> None:
        try:
            self.let_go()  # what a run before this one held, without a guard around it
            KeepRuns.held = ExitStack()
            KeepRuns.held.enter_context(hold(folder))
            if not (may_be_used or _holds_nothing(folder)):
                fail(f"{key}={folder}: already holds something; nothing is overwritten, so name a new folder")
        except UserError as error:
            fail(f"{key}={error}")
        except OSError as error:
            fail(f"{key}={folder}: cannot be written ({error.strerror}); name a new folder")
