"""Where Hydra looks for sweepers."""

import json
from collections.abc import Sequence
from itertools import chain, groupby
from logging import getLogger
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict
from yaml import YAMLError

log = getLogger(__name__)
LAST = Path("checkpoints") / "last.ckpt"


class Sweeper(BasicSweeper):
    """Every combination. Its settings are explained in conf/hydra/sweeper/grid.yaml."""

    def __init__(self, *, resume: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.resume = resume

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        for override in overrides:
            if override.is_interval_sweep():
                raise HydraException(
                    f"{override.input_line}: an interval is searched in; add hydra/sweeper=optuna, or name its values"
                )
        return BasicSweeper.split_arguments(overrides, max_batch_size)

    def sweep(self, arguments: list[str]) -> Any:
        if self.resume:
            assert self.launcher is not None
            self.launcher = _Rest(self.launcher, self._runs(arguments))
        return super().sweep(arguments)

    def _runs(self, arguments: list[str]) -> list[Path]:
        """The folders of all runs, which those that have begun were begun in with the settings that they have now."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        folder = Path(self.config.hydra.sweep.dir)
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(self._parse_config() + arguments)
        if shuffled := [word.input_line for word in parsed if getattr(word.value(), "shuffle", False)]:
            raise HydraException(f"{shuffled[0]}: is in another order each time, so a sweep of it cannot go on")
        here: Any = OmegaConf.to_container(self.config, resolve=False)
        try:
            before: Any = OmegaConf.to_container(OmegaConf.load(folder / "multirun.yaml"), resolve=False)
            was = before["hydra"]["sweep"]["subdir"]
        except (OSError, ValueError, LookupError, TypeError, YAMLError) as error:
            raise HydraException(
                f"{folder}/multirun.yaml: is damaged ({error}), by which it is known how the sweep was begun; begin a "
                "new one"
            ) from error
        if (now := here["hydra"]["sweep"]["subdir"]) != was:
            raise HydraException(f"hydra.sweep.subdir={now}: {folder} was begun with {was}; go on with that")
        (jobs,) = self.split_arguments(parsed, None)
        runs = []
        for number, overrides in enumerate(jobs):
            config = loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            runs.append(run := folder / config.hydra.sweep.subdir)
            asked = _words(config.hydra.overrides.task)
            begun, settings = _begun(run) or (asked, None)
            if begun != asked:
                raise HydraException(
                    f"{run}: was begun with {begun}, and would go on with {asked}; go on with a sweep by the command "
                    "that it was begun by"
                )
            asked_for: Any = OmegaConf.to_container(config, resolve=False)
            plain = {key: value for key, value in asked_for.items() if key != "hydra"}
            if settings and (other := _differing(settings, plain)):
                raise HydraException(
                    f"{run}: was begun with another {other[0]}, by files of settings that have changed since; make "
                    "them what they were, or begin a new sweep"
                )
        return runs

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        from castnet.checks import check_jobs, prepare_evaluation

        assert self.config is not None
        assert self.hydra_context is not None
        if self.batch_index > 1:
            return
        load = self.hydra_context.config_loader.load_sweep_config
        jobs = (load(self.config, list(overrides)) for overrides in chain(*self.overrides or ()))
        if "model" in self.config:
            check_jobs(jobs)
        else:
            for evaluation in jobs:
                prepare_evaluation(evaluation)


def _begun(run: Path) -> tuple[str, Any] | None:
    """The overrides that a run was begun with, and all its settings; None of one that has not begun."""
    metrics, written = run / "metrics.json", run / ".hydra" / "overrides.yaml"
    try:
        if metrics.exists():
            json.loads(metrics.read_text())
        elif not written.exists() and not (run / LAST).exists():
            return None
        settings = OmegaConf.load(written.with_name("config.yaml"))
        return _words(OmegaConf.load(written)), OmegaConf.to_container(settings, resolve=False)
    except (OSError, ValueError, YAMLError) as error:
        raise HydraException(f"{run}: cannot be gone on with ({error}); remove it to begin that run anew") from error


def _differing(was: Any, now: Any, key: str = "") -> list[str]:
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return [] if was == now else [key]
    parts = dict.fromkeys([*was, *now])
    return [name for part in parts for name in _differing(was.get(part), now.get(part), f"{key}.{part}".lstrip("."))]


def _words(overrides: Any) -> str:
    words = OmegaConf.to_container(overrides, resolve=False)  # what they refer to may not be there yet
    if not isinstance(words, list):
        raise ValueError("its overrides.yaml holds none")
    return " ".join(map(str, words))


class _Rest(Launcher):
    """Launches what is left of a sweep: runs without metrics.json, from their last checkpoint if they have one."""

    def __init__(self, launcher: Launcher, runs: Sequence[Path]) -> None:
        self.launcher, self.runs = launcher, runs

    def setup(self, **kwargs: Any) -> None:
        self.launcher.setup(**kwargs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        left = {}
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            last = self.runs[number] / LAST
            if not (self.runs[number] / "metrics.json").exists():
                # How the run was begun stays written there.
                go_on = [f"ckpt_path={QuotedString(str(last), Quote.double).with_quotes()}", "hydra.output_subdir=null"]
                left[number] = [*overrides, *(go_on if last.exists() else [])]
        log.info(f"{len(left)} of {len(job_overrides)} runs are left to do")
        returns: list[JobReturn] = []
        # A launcher numbers runs one after another.
        for _, group in groupby(enumerate(left), lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in group]
            returns += self.launcher.launch([left[number] for number in numbers], numbers[0])
        return returns
