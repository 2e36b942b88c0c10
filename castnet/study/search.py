"""A sweep that searches: Optuna asks for settings, Hydra's launcher tries them, Optuna is told what came of it."""

import math
import shlex
import time
from contextlib import ExitStack, suppress
from logging import getLogger
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna import Study, Trial, TrialPruned, create_study, logging
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import TrialState

from castnet.build import build
from castnet.checks import BEST, check_jobs
from castnet.database import shown, why
from castnet.errors import UserError
from castnet.settings import Count, Rate, Text
from castnet.study.page import write_page
from castnet.study.space import space
from castnet.study.storage import AWAY, open_storage, patiently, require_same

log = getLogger(__name__)

Objective = Literal["loss", "accuracy", "auroc", "escape_rate", "overkill_rate"]
Direction = Literal["minimize", "maximize"]
HOPELESS = 20  # failures in a row, after which no study goes on, whatever share of them it allows
PATIENCE = 2.0  # seconds between looks at the trials that other machines have under way


class Search:
    """One call's share in a study; conf/hydra/sweeper/optuna.yaml explains the settings."""

    def __init__(
        self,
        *,
        n_trials: Count,
        n_jobs: Count,
        study_name: Text,
        storage: Text,
        objective: Objective | list[Objective],
        direction: Direction | list[Direction],
        average: list[str],
        params: dict[str, Any],
        sampler: dict[str, Any],
        pruner: dict[str, Any] | None,
        max_failure_rate: Rate,
        run: None,
    ) -> None:
        self.n_trials, self.n_jobs, self.max_failure_rate = n_trials, n_jobs, max_failure_rate
        self.study_name, self.storage, self.sampler, self.pruner = study_name, storage, sampler, pruner
        self.average, self.params = average, params
        self.objectives = [objective] if isinstance(objective, str) else objective
        self.directions = [direction] if isinstance(direction, str) else direction
        if len(set(self.objectives)) != len(self.objectives):
            raise UserError(f"hydra.sweeper.objective={objective}: names one of them twice; drop it")
        if len(self.directions) != len(self.objectives):
            raise UserError(f"hydra.sweeper.direction={direction}: expected one for each of {self.objectives}")
        if worst := [name for name, to in zip(self.objectives, self.directions, strict=True) if BEST[name] != to[:3]]:
            raise UserError(
                f"hydra.sweeper.direction={direction}: would search for the worst {worst[0]}; "
                f"expected {BEST[worst[0]]}imize for it"
            )
        if len(self.objectives) > 1 and pruner:
            raise UserError("hydra.sweeper.pruner: prunes by one objective; several need hydra.sweeper.pruner=null")
        self.launched = self.tried = self.failed = self.in_a_row = 0
        self.exhausted = False

    def run(self, config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: list[str]) -> None:
        """Try settings until the study has its trials; then write study.html into the sweep's folder."""
        written = [f"{key}={'null' if value is None else value}" for key, value in self.params.items()] + arguments
        self.space = space(OverridesParser.create(config_loader=loader).parse_overrides(written), self.average)
        tried = [loader.load_sweep_config(config, example) for example in self.space.examples()]
        check_jobs(tried)  # what a run would refuse is refused before the first trial
        for run in tried:
            self._require_told(run)
        swept = {line.partition("=")[0].lstrip("+") for line in self.space.averaged}  # groups among them
        settled = [key for key in self.average if key.lstrip("+") not in swept]
        if unknown := [key for key in settled if OmegaConf.select(tried[0], key, default=self) is self]:
            raise UserError(f"hydra.sweeper.average: {unknown[0]} is no setting; expected such as seed or data.fold")
        if self.pruner:  # the runs build theirs
            build("hydra.sweeper.pruner", OmegaConf.create(self.pruner), BasePruner)  # type: ignore[type-abstract]
        self._rehearse()
        if isinstance(launcher, BasicLauncher):  # one after another either way, and each is told of when it ends
            self.n_jobs = 1
        study = create_study(
            storage=open_storage(self.storage),
            study_name=self.study_name,
            directions=self.directions,
            sampler=self._sampler(),
            load_if_exists=True,
        )
        study.stop = self._stop  # type: ignore[method-assign]
        require_same(study, dict(zip(self.objectives, self.directions, strict=True)), self.space)
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "multirun.yaml")
        named = shlex.quote(_named(study))
        log.info(f"Study {study.study_name}: {named} goes on with it")
        try:
            while trials := self._ask(study):
                self._try(study, launcher, trials)
            log.info(write_page(study, self.space, folder))
        except AWAY as error:
            raise UserError(
                f"hydra.sweeper.storage={shown(self.storage)}: went away ({why(error)}); when it is back, "
                f"{named} goes on with the study"
            ) from error

    def _require_told(self, config: DictConfig) -> None:
        """Refuse a run that would not tell its objectives, which only shows when it has been trained.

        Raises:
            UserError: it would not.
        """
        if config.trainer.get("limit_val_batches") == 0:
            raise UserError("trainer.limit_val_batches=0: validates nothing, by which trials are judged; leave it out")
        monitor = OmegaConf.select(config, "callbacks.checkpoint.monitor", default="val/loss")
        if "loss" in self.objectives and monitor != "val/loss":  # of others the best epoch's metrics are calibrated
            raise UserError(
                f"hydra.sweeper.objective=loss: no run tells its loss where callbacks.checkpoint.monitor={monitor}; "
                "search for another objective, or monitor val/loss"
            )

    def _sampler(self) -> BaseSampler:
        return build("hydra.sweeper.sampler", OmegaConf.create(self.sampler), BaseSampler)  # type: ignore[type-abstract]

    def _rehearse(self) -> None:
        """Draw settings twice in memory: a sampler that cannot would leave a trial that nobody ends."""
        sampler, loud = self._sampler(), logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            rehearsal = create_study(directions=self.directions, sampler=sampler)
            rehearsal.stop = lambda: None  # type: ignore[method-assign]
            for _ in range(2):
                rehearsal.tell(rehearsal.ask(self.space.searched), [0.5] * len(self.directions))
        except Exception as error:  # samplers raise many kinds
            raise UserError(
                f"hydra.sweeper.sampler={self.sampler['_target_']}: cannot draw settings ({error}); expected a sampler "
                "of Optuna's that fits this search space"
            ) from error
        finally:
            logging.set_verbosity(loud)

    def _stop(self) -> None:
        """What a sampler calls that has nothing left to try; Optuna's own refuses that outside its own loop."""
        self.exhausted = True

    def _ask(self, study: Study) -> list[Trial]:
        """The next trials; none when the study is complete, or its sampler has nothing left.

        Waits for those that other machines have under way.
        """
        waits = False
        is_exhausted = getattr(study.sampler, "is_exhausted", lambda _: False)  # a grid, by whoever tried its points
        while not self.exhausted and not patiently(lambda: is_exhausted(study)):
            patiently(lambda: fail_stale_trials(study))
            states = [trial.state for trial in patiently(lambda: study.get_trials(deepcopy=False))]
            finished = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
            missing = self.n_trials - finished - states.count(TrialState.RUNNING)
            asked = []
            for _ in range(min(self.n_jobs, missing)):
                asked.append(trial := study.ask(self.space.searched))
                # One that never gave a sign of life is never taken for dead.
                study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
            # Other machines may have asked at the same moment; of too many trials, the last ones step back.
            everyone = study.get_trials(deepcopy=False)
            for trial in list(asked):
                before = [other.state for other in everyone[: trial.number]]
                if len(before) - before.count(TrialState.FAIL) >= self.n_trials:
                    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                    asked.remove(trial)
            if asked or finished >= self.n_trials:
                return asked
            if not waits:
                log.info(f"Waits for {states.count(TrialState.RUNNING)} trials that others have under way")
            waits = True
            time.sleep(PATIENCE)
        return []

    def _try(self, study: Study, launcher: Launcher, trials: list[Trial]) -> None:
        """Run trials, all repetitions of each, and judge them by their means."""
        jobs = []
        for trial in trials:
            chosen = [*self.space.fixed, *(f"{key}={value}" for key, value in trial.params.items())]
            for index, repeat in enumerate(self.space.repeats):
                run = f"{{trial_id:{trial._trial_id},repeat:{index},repeats:{len(self.space.repeats)}}}"
                told = [_named(study), f"hydra.sweeper.run={run}"]
                jobs.append([*chosen, *repeat, *told])
        waiting = list(trials)
        try:
            with ExitStack() as beating:
                for trial in trials:
                    beating.enter_context(get_heartbeat_thread(trial._trial_id, study._storage))  # type: ignore[arg-type]
                try:
                    returns = launcher.launch(jobs, initial_job_idx=self.launched)
                    outcomes = [job._return_value for job in returns]
                except Exception as error:
                    outcomes = [error] * len(jobs)
            self.launched += len(jobs)
            failures = []
            while waiting:
                of_trial, outcomes = outcomes[: len(self.space.repeats)], outcomes[len(self.space.repeats) :]
                failures += self._tell(study, waiting.pop(0), of_trial)
            if failures and (self.in_a_row >= HOPELESS or self.failed > self.max_failure_rate * self.tried):
                raise failures[0]
        finally:
            with suppress(*AWAY):  # where they give no sign of life, and are taken for dead
                for trial in waiting:  # interrupted
                    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _tell(self, study: Study, trial: Trial, outcomes: list[Any]) -> list[BaseException]:
        """Tell the study what came of a trial; returns what it failed by, if it did."""
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if missing := [name for name in self.objectives if not errors and any(name not in of for of in outcomes)]:
            errors = [UserError(f"trial {trial.number}: was not validated, so that it has no {', '.join(missing)}")]
        values = [] if errors else [fmean(outcome[name] for outcome in outcomes) for name in self.objectives]
        if not all(map(math.isfinite, values)):
            errors = [UserError(f"trial {trial.number}: {', '.join(self.objectives)} came out as {values}")]
        self.tried += 1
        if failures := [error for error in errors if not isinstance(error, TrialPruned)]:
            self.failed += 1
            self.in_a_row += 1
            log.error(f"Trial {trial.number} failed: {failures[0]!r}")
        else:
            self.in_a_row = 0
        state = TrialState.FAIL if failures else TrialState.PRUNED if errors else None
        # One that another machine took for dead, and whose settings it tries again, stays as it is.
        patiently(lambda: study.tell(trial, None if errors else values, state, skip_if_finished=True))
        return failures


def _named(study: Study) -> str:
    """The setting that names a study, whatever its name is."""
    return f"hydra.sweeper.study_name={QuotedString(study.study_name, Quote.double).with_quotes()}"
