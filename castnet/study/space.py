"""Hydra's override grammar as Optuna's search space."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from castnet.errors import UserError


@dataclass(frozen=True)
class Space:
    """What a study searches.

    Attributes:
        fixed: overrides that every run has.
        searched: distributions by key.
        averaged: sweeps whose values are repetitions.
        repeats: overrides of the runs that make up one trial, one list for each run.
    """

    fixed: list[str]
    searched: dict[str, BaseDistribution]
    averaged: list[str]
    repeats: list[list[str]]

    def examples(self) -> Iterator[list[str]]:
        """Overrides of one run for every choice, every bound and every repetition, so that each is seen once."""
        first = {key: _ends(drawn)[0] for key, drawn in self.searched.items()}
        runs = [(first | {key: end}, self.repeats[0]) for key, drawn in self.searched.items() for end in _ends(drawn)]
        for values, repeat in [*runs, *((first, repeat) for repeat in self.repeats[1:])]:
            yield [*self.fixed, *(f"{key}={value}" for key, value in values.items()), *repeat]


def _ends(drawn: BaseDistribution) -> Sequence[object]:
    """All choices, or the least and the largest value; of numbers without steps those beside them, which are drawn."""
    if isinstance(drawn, CategoricalDistribution):
        return drawn.choices
    low, high = drawn.low, drawn.high  # type: ignore[attr-defined]
    if isinstance(drawn, FloatDistribution) and drawn.step is None and low < high:
        return math.nextafter(low, high), math.nextafter(high, low)
    return low, high


def space(overrides: Sequence[Override], averaged: Sequence[str]) -> Space:
    """Part overrides into what is fixed, searched and repeated; of two with one key the later counts.

    Args:
        overrides: parsed by Hydra.
        averaged: keys whose sweeps are repetitions of a trial.

    Raises:
        UserError: nothing is searched, a sweep cannot be searched, or an interval is to be averaged over.
    """
    last: dict[str, Override] = {}
    for override in overrides:
        written = override.get_key_element()
        bare = written.lstrip("+")
        # What was added with + may be changed by a later line without, and Hydra needs both.
        replaced = {written, bare, f"++{bare}", *([f"+{bare}"] if written.startswith("++") else [])}
        last = {key: kept for key, kept in last.items() if key not in replaced} | {written: override}
    names = [name.lstrip("+") for name in averaged]
    sweeps = {key: override for key, override in last.items() if override.is_sweep_override()}
    repeated = {key: sweeps[key] for name in names for key in sweeps if key.lstrip("+") == name}
    searched = {key: _distribution(key, override) for key, override in sweeps.items() if key not in repeated}
    if not searched:
        raise UserError("hydra.sweeper.params: names no setting to search; choose one with study=…, or add KEY=RANGE")
    if unlisted := [key for key, override in repeated.items() if not override.is_discrete_sweep()]:
        raise UserError(f"{unlisted[0]}={sweeps[unlisted[0]].get_value_string()}: no list of values to average over")
    values = [[f"{key}={value}" for value in override.sweep_string_iterator()] for key, override in repeated.items()]
    return Space(
        fixed=[override.input_line or "" for key, override in last.items() if key not in sweeps],
        searched=searched,
        averaged=[override.input_line or "" for key, override in sweeps.items() if key in repeated],
        repeats=[list(chosen) for chosen in product(*values)],
    )


def _distribution(key: str, override: Override) -> BaseDistribution:
    sweep = override.value()
    in_order = isinstance(sweep, RangeSweep) and not sweep.shuffle
    known = {"log", "int"} if isinstance(sweep, IntervalSweep) else {"log"} if in_order else set()
    try:
        if unknown := sorted(getattr(sweep, "tags", set()) - known):
            raise ValueError(f"the tag {unknown[0]} says nothing here; expected {' or '.join(sorted(known)) or 'none'}")
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None
            assert sweep.end is not None
            log = "log" in sweep.tags
            if "int" in sweep.tags or isinstance(sweep.start, int):
                return IntDistribution(int(sweep.start), int(sweep.end), log=log)
            return FloatDistribution(sweep.start, sweep.end, log=log)
        if isinstance(sweep, RangeSweep) and not sweep.shuffle:
            values = sorted(sweep.range())  # upwards or downwards, they are the same to a search
            step = abs(sweep.step)
            if all(isinstance(value, int) for value in values):
                return IntDistribution(int(values[0]), int(values[-1]), step=int(step), log="log" in sweep.tags)
            if "log" in sweep.tags:
                raise ValueError("steps are not equal on a scale that is logarithmic; use interval")
            # Added up in binary the last value falls short of its step, and Optuna would leave it out.
            start = Decimal(str(sweep.start))
            low, high = sorted((start, start + (len(values) - 1) * Decimal(str(sweep.step))))
            return FloatDistribution(float(low), float(high), step=float(step))
        return CategoricalDistribution(tuple(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"{key}={override.get_value_string()}: nothing to search in ({error})") from error
