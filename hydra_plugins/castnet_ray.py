"""Hydra's launcher for Ray, which connects to clusters that are there and ends as it is told to."""

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from castnet.errors import extra

SHARED = 75 * 2**20  # bytes for what jobs share, as hydra-ray-launcher has it; the least that Ray takes


class RayLauncher(Launcher):
    """Hands runs to Ray as hydra-ray-launcher does, on a cluster that answers.

    Its settings are explained in conf/hydra/launcher/ray.yaml.
    """

    def __init__(self, ray: DictConfig) -> None:
        self.ray = ray

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        with extra("ray"):
            from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as Plugin
        self.launcher = Plugin(self.ray)
        self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        with extra("ray"):
            from castnet.ray_cluster import connect

        options: dict[str, Any] = OmegaConf.to_container(self.ray.init, resolve=True)  # type: ignore[assignment]
        setting, address = "hydra.launcher.ray.init.address", options.pop("address", None)
        if not address and "RAY_ADDRESS" in os.environ:
            setting, address = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
        if not address:  # a cluster that is there has its own
            options.setdefault("object_store_memory", SHARED)
        here = os.getcwd()

        def go_there() -> None:
            os.chdir(here)  # by which runs find what settings name: workers are where their cluster was started

        options["runtime_env"] = {"worker_process_setup_hook": go_there} | options.get("runtime_env", {})
        connect(setting, address, **options)
        return self.launcher.launch(job_overrides, initial_job_idx)
