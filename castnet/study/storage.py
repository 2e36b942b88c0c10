"""Where studies are kept: a database that every machine of a study reaches."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

from optuna import Study
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from castnet.database import with_tables
from castnet.errors import UserError
from castnet.study.space import Space

HEARTBEAT = 10  # seconds between the signs of life of a trial
GRACE = 60  # seconds without one after which a trial is taken for dead, and its settings are tried again
TIMEOUT = 10  # seconds to wait for a database server

# Signs of life, names of objectives and plots with Matplotlib have been called experimental since Optuna 3.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")
# What may differ between the machines that join a study, or between its calls.
WHERE = ("paths.", "data.root=", "data.num_workers=", "trainer.accelerator=", "trainer.devices=", "logger", "study=")


def open_storage(url: str) -> RDBStorage:
    """Open the database of studies; SQLite's file is made if missing.

    Args:
        url: SQLAlchemy's, such as sqlite:///studies.db or postgresql+psycopg://user@host/database.

    Raises:
        UserError: it cannot be reached, is in memory, or is no such URL.
    """
    shown = url.partition(":")[0]  # never a password
    try:
        address = make_url(url)
        shown = address.set(query={}).render_as_string()
        is_file = address.get_backend_name() == "sqlite"
        if is_file:
            if address.database in (None, "", ":memory:"):
                raise UserError(f"hydra.sweeper.storage={shown}: is in memory, where no run finds it; name a file")
            if not address.database.startswith("file:"):
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {"timeout" if is_file else "connect_timeout": TIMEOUT}
        return with_tables(
            lambda: RDBStorage(
                url,
                engine_kwargs={"connect_args": arguments},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        )
    except ArgumentError as error:
        raise UserError(f"hydra.sweeper.storage={shown}: no URL of a database, such as sqlite:///studies.db") from error
    except (SQLAlchemyError, OptunaError, ImportError, OSError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error.__cause__ or error)
        raise UserError(f"hydra.sweeper.storage={shown}: cannot be opened ({reason})") from error


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
        if known.get(part) != value:
            raise UserError(
                f"hydra.sweeper.study_name={study.study_name}: that study has other {part}: "
                f"{json.dumps(known.get(part))} instead of {json.dumps(value)}; name a new study"
            )
