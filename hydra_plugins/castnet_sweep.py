"""Where Hydra looks for sweepers."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class Sweeper(BasicSweeper):
    """Every combination, none of which is run if one would be refused when its turn comes."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        from castnet.checks import prepare

        assert self.config is not None
        assert self.hydra_context is not None
        for overrides in batch:
            prepare(self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides)))
