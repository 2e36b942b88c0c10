"""Ends a run of a study that is hopeless."""

import logging
from contextlib import suppress
from copy import copy
from typing import Any

import optuna
from lightning import Callback, LightningModule, Trainer
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, Trial

from castnet.database import why
from castnet.study.storage import AWAY, open_storage, patiently

log = logging.getLogger(__name__)
PRUNED = "pruned"  # the trial's attribute that tells its other runs


class Pruning(Callback):
    """Report the objective after every epoch, and end the run if the study's pruner finds the trial hopeless.

    Epochs that were not validated are passed over. Runs of one trial, its repetitions, take turns in reporting: epoch e
    of repetition r is step e · repeats + r, so that a run is compared with runs of the same seed and fold. One that is
    pruned ends the others.

    Args:
        storage: as for `castnet.study.storage.open_storage`.
        study_name: the study.
        objective: validation metric to report.
        pruner: decides; None lets every run end by itself.
        run: `trial_id` in the storage and which `repeat` of how many `repeats` this run is.

    Raises:
        optuna.TrialPruned: the run is hopeless.
    """

    def __init__(
        self, *, storage: str, study_name: str, objective: Any, pruner: BasePruner | None, run: dict[str, int]
    ) -> None:
        self.storage, self.study_name, self.pruner = storage, study_name, pruner
        self.objective, self.run = objective, run
        self.trial: Trial | None = None
        self.validated = False  # in this epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pruner and trainer.is_global_zero:
            study = patiently(
                lambda: optuna.load_study(
                    study_name=self.study_name, storage=open_storage(self.storage), pruner=self.pruner
                )
            )
            self.trial = Trial(study, self.run["trial_id"])
        self._end_if(trainer, self._ended_elsewhere())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        hopeless = False
        value = trainer.callback_metrics.get(f"val/{self.objective}")  # of a class without images no rate is known
        if self.pruner and self.trial is not None and self.validated and value is not None:
            try:
                self.trial.report(value.item(), trainer.current_epoch * self.run["repeats"] + self.run["repeat"])
                hopeless = self.pruner.prune(self.trial.study, self._of_this_run()) or self._ended_elsewhere()
            except UpdateFinishedTrialError:  # another machine took it for dead, and tries its settings again
                hopeless = True
            except AWAY as error:
                log.warning(f"Epoch {trainer.current_epoch} is not reported to the study ({why(error)})")
        self.validated = False
        self._end_if(trainer, hopeless)

    def _of_this_run(self) -> FrozenTrial:
        """The trial without what its other repetitions reported: a good seed must not cover for a bad one.

        Pruners that keep rungs (successive halving, Hyperband) keep them by trial, and so judge the first one alone.
        """
        assert self.trial is not None
        seen = copy(self.trial.storage.get_trial(self.trial._trial_id))
        reported, repeats = seen.intermediate_values, self.run["repeats"]
        seen.intermediate_values = {s: value for s, value in reported.items() if s % repeats == self.run["repeat"]}
        return seen

    def _ended_elsewhere(self) -> bool:
        return self.trial is not None and PRUNED in self.trial.user_attrs

    def _end_if(self, trainer: Trainer, hopeless: bool) -> None:
        if trainer.strategy.broadcast(hopeless):
            if self.trial is not None:
                with suppress(UpdateFinishedTrialError, *AWAY):
                    self.trial.set_user_attr(PRUNED, trainer.current_epoch)
            raise optuna.TrialPruned(f"in epoch {trainer.current_epoch}")
