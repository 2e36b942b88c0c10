from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import torch

from castnet.study.pruning import Pruning


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """One in which a trial of two repetitions has a result."""
    made = optuna.create_study(storage=f"sqlite:///{tmp_path}/studies.db", study_name="s")
    first = made.ask()
    for repeat in (0, 1):
        assert epochs_of(made, first, repeat, [0.5, 0.4]) == 2
    made.tell(first, 0.4)
    return made


def epochs_of(study: optuna.Study, trial: optuna.Trial, repeat: int, losses: list[float]) -> int:
    """How many epochs one of two repetitions trains that has these losses."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    storage = str(cast(Any, study._storage)._backend.url)
    run = {"trial_id": trial._trial_id, "repeat": repeat, "repeats": 2}
    pruning = Pruning(storage=storage, study_name="s", objective="loss", pruner=pruner, run=run)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, current_epoch=0, strategy=SimpleNamespace(broadcast=lambda value: value)
    )
    module: Any = None
    pruning.on_fit_start(trainer, module)
    for epoch, loss in enumerate(losses):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/loss": torch.tensor(loss)}
        pruning.on_validation_end(trainer, module)
        try:
            pruning.on_train_epoch_end(trainer, module)
        except optuna.TrialPruned:
            return epoch + 1
    return len(losses)


def test_a_hopeless_seed_ends_though_the_one_before_it_was_good(study: optuna.Study) -> None:
    trial = study.ask()
    assert epochs_of(study, trial, 0, [0.4, 0.3]) == 2
    assert epochs_of(study, trial, 1, [9.0, 9.0]) == 1


def test_a_good_seed_is_compared_with_the_same_one_of_other_trials(study: optuna.Study) -> None:
    trial = study.ask()
    assert epochs_of(study, trial, 0, [0.6, 0.6]) == 1
    assert epochs_of(study, study.ask(), 1, [0.5, 0.3]) == 2
