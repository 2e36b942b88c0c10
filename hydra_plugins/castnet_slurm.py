"""Where Hydra looks for launchers; the work is done by hydra-submitit-launcher, which comes with the extra `slurm`."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from castnet.errors import UserError, extra
from castnet.signals import told_later

LOOK, GONE = 2.0, 20.0  # seconds between looks, and in which what a job wrote comes to be seen on other machines


class SlurmLauncher(Launcher):
    """Hands runs to SLURM as submitit does, waits for each whatever becomes of others, and leaves none when stopped.

    Its settings are explained in conf/hydra/launcher/submitit_slurm.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Hydra imports this module whenever it starts, so what takes time is imported only here.
        with extra("slurm"):
            from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit
        self.launcher = Submitit(**self.settings)
        self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        import submitit

        jobs: list[submitit.Job[JobReturn]] = []

        class Executor(submitit.AutoExecutor):
            def map_array(self, fn: Any, *iterable: Any) -> list[Any]:
                with told_later():  # what SLURM has taken and not named yet could not be cancelled
                    jobs.extend(super().map_array(fn, *iterable))
                return list(map(_Outcome, jobs, iterable[0]))  # overrides come first

        try:
            # Submitit's launcher keeps its jobs to itself, so it is given what it makes them with.
            with patch.object(submitit, "AutoExecutor", Executor):
                return self.launcher.launch(job_overrides, initial_job_idx)
        except BaseException:
            for job in jobs:
                with suppress(Exception):  # it has ended, or SLURM is away
                    job.cancel()
            raise


class _Outcome:
    """What came of a job, as submitit tells it, and of one that was lost what Hydra knows of runs that failed."""

    def __init__(self, job: Any, overrides: list[str]) -> None:
        self.job, self.overrides = job, overrides

    def results(self) -> list[JobReturn]:
        import submitit

        since = time.monotonic()
        try:
            # Where SLURM keeps no accounts, submitit would wait for ever for a job that was lost.
            while not self.job.done() and time.monotonic() - since < GONE:
                time.sleep(LOOK)
                if self.job.state != "UNKNOWN" or self._is_queued():
                    since = time.monotonic()
            if not self.job.done():
                raise UserError(f"job {self.job.job_id}: SLURM has it no more, and it left no result; see its log")
            return self.job.results()
        except (UserError, submitit.core.utils.UncompletedJobError) as error:
            return [JobReturn(self.overrides, status=JobStatus.FAILED, _return_value=error)]

    def _is_queued(self) -> bool:
        """Whether SLURM has the job, as far as it can be asked."""
        try:
            asked = subprocess.run(["squeue", "-h", "-j", self.job.job_id], capture_output=True, text=True)
        except OSError:
            return True
        return bool(asked.stdout.strip() or (asked.returncode and "Invalid job id" not in asked.stderr))
