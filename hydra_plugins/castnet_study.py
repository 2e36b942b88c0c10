"""Where Hydra looks for sweepers; the work is done in castnet.study.search, which needs the extra `study`."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from castnet.errors import extra


class OptunaSweeper(Sweeper):
    """A sweep that searches. Its settings are explained in conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        with extra("study"):
            from castnet.settings import check
            from castnet.study.search import Search
        check("hydra.sweeper", Search.__init__, self.settings)
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        Search(**self.settings).run(self.config, self.hydra_context.config_loader, self.launcher, arguments)
