"""Where Hydra looks for sweepers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from logging import getLogger
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict

log = getLogger(__name__)


@dataclass
class Settings(BasicSweeperConf):
    """The settings under `hydra.sweeper`.

    Attributes:
        max_batch_size: as many runs at most are handed to the launcher at once.
        params: what is swept, before what the command line says.
        resume: whether to go on with the sweep in `hydra.sweep.dir`: runs that have ended stay as they are.
    """

    _target_: str = "hydra_plugins.castnet_sweep.Sweeper"
    params: dict[str, str] = field(default_factory=dict)
    resume: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=Settings, provider="castnet")


class Sweeper(BasicSweeper):
    """Every combination, none of which is run if a setting of one would be refused when its turn comes."""

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
        parser = OverridesParser.create(config_loader=loader)
        (jobs,) = self.split_arguments(parser.parse_overrides(self._parse_config() + arguments), None)
        runs = []
        for number, overrides in enumerate(jobs):
            config = loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            runs.append(run := Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
            written = run / ".hydra" / "overrides.yaml"
            if written.exists():
                begun, asked = map(_words, (OmegaConf.load(written), config.hydra.overrides.task))
                if begun != asked:
                    raise HydraException(
                        f"{run}: was begun with {begun}, and would go on with {asked}; go on with a sweep by the "
                        "command that it was begun by"
                    )
        return runs

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        from castnet.checks import check_jobs

        assert self.config is not None
        assert self.hydra_context is not None
        if self.batch_index == 1 and "model" in self.config:  # the first of several, and not of evaluations
            load = self.hydra_context.config_loader.load_sweep_config
            check_jobs(load(self.config, list(overrides)) for overrides in chain(*self.overrides or ()))


def _words(overrides: Any) -> str:
    # What they refer to may not be there yet.
    words: list[str] = OmegaConf.to_container(overrides, resolve=False)  # type: ignore[assignment]
    return " ".join(words)


class _Rest(Launcher):
    """Launches what is left of a sweep: runs without metrics.json, from their last checkpoint if they have one."""

    def __init__(self, launcher: Launcher, runs: Sequence[Path]) -> None:
        self.launcher, self.runs = launcher, runs

    def setup(self, **kwargs: Any) -> None:
        self.launcher.setup(**kwargs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        left = {}
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            last = self.runs[number] / "checkpoints" / "last.ckpt"
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
