"""Where studies are kept: a database that every machine of a study reaches."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna import Study
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from castnet.database import shown, why, with_tables
from castnet.errors import UserError
from castnet.study.space import Space

T = TypeVar("T")

HEARTBEAT = 10  # seconds between the signs of life of a trial
GRACE = 60  # seconds without one after which a trial is taken for dead, and its settings are tried again
TIMEOUT = 10  # seconds to wait for a database server
PAUSE = 2.0  # seconds until one that is away is asked again

# Signs of life, names of objectives and plots with Matplotlib have been called experimental since Optuna 3.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")
# What may differ between the machines that join a study, or between its calls.
WHERE = ("paths.", "data.root=", "data.num_workers=", "trainer.accelerator=", "trainer.devices=", "logger", "study=")


AWAY = (StorageInternalError, SQLAlchemyError)  # what is raised where the database does not answer


class _Storage(RDBStorage):
    """One that may be away for a moment: a sign of life that it does not take is followed by others."""

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(*AWAY):  # it would end Optuna's thread, and the trial would be taken for dead
            super().record_heartbeat(trial_id)


def patiently(ask: Callable[[], T]) -> T:
    """What a storage answers, also where it is away for a moment.

    Raises:
        StorageInternalError, SQLAlchemyError, UserError: it stays away.
    """
    deadline = time.monotonic() + GRACE
    while True:
        try:
            return ask()
        except (*AWAY, UserError):
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def open_storage(url: str) -> RDBStorage:
    """Open the database of studies; SQLite's file is made if missing.

    Args:
        url: SQLAlchemy's, such as sqlite:///studies.db or postgresql+psycopg://user@host/database.

    Raises:
        UserError: it cannot be reached, is in memory, or is no such URL.
    """
    try:
        address = make_url(url)
        is_file = address.get_backend_name() == "sqlite"
        if is_file:
            if address.database in (None, "", ":memory:"):
                raise UserError(f"hydra.sweeper.storage={shown(url)}: is in memory, where no run finds it; name a file")
            if not address.database.startswith("file:"):
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {"timeout" if is_file else "connect_timeout": TIMEOUT}
        return with_tables(
            lambda: _Storage(
                url,
                # A connection may be dead since the server was started anew.
                engine_kwargs={"connect_args": arguments, "pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        )
    except (ArgumentError, ValueError) as error:
        raise UserError(
            f"hydra.sweeper.storage={shown(url)}: no URL of a database, such as sqlite:///studies.db"
        ) from error
    except (SQLAlchemyError, OptunaError, ImportError, OSError, RuntimeError) as error:
        raise UserError(f"hydra.sweeper.storage={shown(url)}: cannot be opened ({why(error)})") from error


def require_same(study: Study, objectives: Mapping[str, str], searched: Space) -> None:
    """Note in a new study what it compares; refuse to go on with one that compares something else.

    Args:
        study: new or loaded.
        objectives: their directions by name.
        searched: the search space.

    Raises:
        UserError: the study has other objectives, directions, repetitions or fixed settings, or another search space.
    """
    asked = {
        "objective": dict(objectives),
        "search space": {key: distribution_to_json(drawn) for key, drawn in searched.searched.items()},
        "repetitions": searched.repeats,
        "fixed settings": sorted(line for line in searched.fixed if not line.lstrip("+~").startswith(WHERE)),
    }
    if not study.user_attrs and not study.get_trials(deepcopy=False):
        kept = [direction.name.lower() for direction in study.directions]
        if kept != list(objectives.values()):  # as another program made it
            raise UserError(
                f"hydra.sweeper.study_name={study.study_name}: that study has other directions: {json.dumps(kept)} "
                f"instead of {json.dumps(list(objectives.values()))}; name a new study"
            )
        study.set_metric_names(list(objectives))
        study.set_user_attr("castnet", asked)
    known = study.user_attrs.get("castnet", {})
    for part, value in asked.items():
        had = known.get(part)
        if had != value or (part == "objective" and list(had) != list(value)):  # whose values are kept in this order
            theirs, ours = _without(had, value), _without(value, had)
            theirs, ours = (theirs or "nothing", ours or "nothing") if theirs or ours else (had, value)
            raise UserError(
                f"hydra.sweeper.study_name={study.study_name}: that study has other {part}: {theirs} instead of "
                f"{ours}; name a new study"
            )


def _without(one: Any, other: Any) -> Any:
    """The entries of one that the other has not, or not so, where both are of a kind that has entries."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: value for key, value in one.items() if other.get(key) != value}
    if isinstance(one, list) and isinstance(other, list):
        return [value for value in one if value not in other]
    return one
