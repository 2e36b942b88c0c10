"""The page that a study ends with."""

import logging
import shlex
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from castnet.report.html import png, render
from castnet.study.space import Space

# What Matplotlib has to say of choices between numbers.
logging.getLogger("matplotlib.category").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")  # which is seen to below


def write_page(study: Study, searched: Space, folder: Path) -> str:
    """Write study.html: the best trials, each as a command to paste, and Optuna's plots.

    Args:
        study: with all its trials.
        searched: its search space.
        folder: where the page goes.

    Returns:
        The best trials for a terminal.
    """
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state)} {state.name.lower()}" for state in TrialState if state in states)
    names = study.metric_names or []
    command = ["python", "train.py", *(["-m", *searched.averaged] if searched.averaged else [])]
    command += [line for line in searched.fixed if not line.startswith("study=")]
    rows: list[dict[str, Any]] = [
        {
            "number": trial.number,
            "values": dict(zip(names, trial.values, strict=True)),
            "command": shlex.join([*command, *(f"{key}={value}" for key, value in trial.params.items())]),
        }
        for trial in study.best_trials
    ]
    pictures = {title: png(figure) for title, figure in _figures(study, names)}
    page = render("study.html.j2", pictures, name=study.study_name, counts=counts, best=rows)
    (folder / "study.html").write_text(page, encoding="utf-8")
    lines = [
        f"{', '.join(f'{name} {value:.5g}' for name, value in row['values'].items())}: {row['command']}" for row in rows
    ]
    return "\n".join([f"{counts}; page: {folder / 'study.html'}", *lines])


def _figures(study: Study, names: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Optuna's plots with their titles, as far as there are results for them."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state is TrialState.COMPLETE]
    if not finished:
        return
    if len(names) == 2:
        yield "Which of one can be had at which of the other", _drawn(plots.plot_pareto_front(study))
    for index, name in enumerate(names):
        values = [trial.values[index] for trial in finished]
        one: dict[str, Any] = {}
        if len(names) > 1:
            one = {"target": lambda trial, index=index: trial.values[index], "target_name": name}
        yield f"{name}: history", _drawn(plots.plot_optimization_history(study, **one))
        yield f"{name}: by setting", _drawn(plots.plot_slice(study, **one))
        if len(set(values)) > 1:  # what never changes has no causes to be weighed
            # Which takes low values for the good ones, unless there is one objective alone.
            sign = 1 if study.directions[index] is StudyDirection.MINIMIZE else -1
            if one:
                one["target"] = lambda trial, index=index, sign=sign: sign * trial.values[index]
            yield f"{name}: importance of the settings", _drawn(plots.plot_param_importances(study, **one))


def _drawn(axes: Any) -> Figure:
    """The figure of what Optuna returns, one axes or several, taken out of pyplot's keeping."""
    several = isinstance(axes, np.ndarray)
    figure: Figure = np.atleast_1d(axes)[0].figure
    figure.set_size_inches(max(8.0, figure.get_size_inches()[0]), 4.5)
    # Names of settings are long. A constrained layout leaves no room for a single axes' legend and colour bar.
    figure.set_layout_engine("constrained" if several else "tight")
    for one in np.atleast_1d(axes):
        if one.get_xscale() == "log":  # whose panels are too narrow for the numbers that matplotlib puts there
            places = _places(*one.get_xlim())
            one.set_xticks(places, [f"{at:g}" for at in places])
            one.xaxis.set_minor_formatter(NullFormatter())
    pyplot.close(figure)
    return figure


def _places(low: float, high: float) -> list[float]:
    """Numbers of few digits that stand far enough from each other on an axis of logarithms, three if they fit."""
    places = [low]
    for digits, count in ((1, 3), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1)):
        places = [float(f"{at:.{digits}g}") for at in np.geomspace(low, high, 2 * count + 1)[1::2]]
        apart = np.diff(np.log(places)) > 0.9 * np.log(high / low) / count
        if low <= places[0] <= places[-1] <= high and apart.all():
            break
    return places
