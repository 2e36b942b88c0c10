"""Where Hydra looks for sweepers."""

from collections.abc import Sequence
from itertools import chain

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


class Sweeper(BasicSweeper):
    """Every combination, none of which is run if a setting of one would be refused when its turn comes."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        for override in overrides:
            if override.is_interval_sweep():
                raise HydraException(
                    f"{override.input_line}: an interval is searched in; add hydra/sweeper=optuna, or name its values"
                )
        return BasicSweeper.split_arguments(overrides, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        from castnet.checks import check_jobs

        assert self.config is not None
        assert self.hydra_context is not None
        if self.batch_index == 1 and "model" in self.config:  # the first of several, and not of evaluations
            load = self.hydra_context.config_loader.load_sweep_config
            check_jobs(load(self.config, list(overrides)) for overrides in chain(*self.overrides or ()))
