"""Several processes that train one run together: which one this is, and how all of them end together."""

import os
import sys
import threading
import time

import torch
import torch.distributed as dist

# Set by Lightning, torchrun or SLURM in every process but the first, each counting in its own way from 0.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
LOOK = 0.2  # seconds between two looks at whether the parent lives


def is_first() -> bool:
    """Whether this process is the first of its run, which makes, writes and prints what is wanted once."""
    return not any(os.environ.get(name, "0") != "0" for name in RANKS)


def follow() -> None:
    """Have a process that is not its run's first say nothing and end as soon as the one that started it has.

    Training waits in collective calls, where no signal reaches Python; a thread does not.
    """
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # What Hydra would write, the first process writes.
    sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(os.EX_TEMPFAIL)

    threading.Thread(target=wait, daemon=True).start()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended, which tells its own reason."""
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    )


def count_everywhere(n: int, device: torch.device) -> int:
    """The sum of a number over all processes of the run, which all must ask for."""
    if not dist.is_initialized():
        return n
    total = torch.tensor(n, device=device)
    dist.all_reduce(total)
    return int(total)


def share_random_state() -> None:
    """Let all processes of the run draw the numbers that the first one is going to draw."""
    states = [torch.get_rng_state()]
    dist.broadcast_object_list(states)
    torch.set_rng_state(states[0])
