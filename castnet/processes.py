"""Several processes that train one run together: which one this is, and how all of them end together."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from castnet.errors import UserError
from castnet.signals import obey_while_waiting

# Set by Lightning, torchrun, SLURM or LSF in every process but the first, each counting in its own way from 0.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
STARTED_BY = "CASTNET_STARTED_BY"  # the entry of the environment for the process that starts others, by its number
SOCKET = len("/pymp-12345678/listener-12345678")  # below TMPDIR, by which processes hand images to each other
LONGEST = 107 if sys.platform == "linux" else 103  # bytes of a socket's whole path
LOOK = 0.2  # seconds between two looks at whether the parent lives, or what is waited for is there
PATIENCE = 1800  # seconds after which PyTorch too gives up on other processes


def ranks() -> list[str]:
    """What the environment says of this process's place among several, as NAME=NUMBER; nothing in the first one."""
    return [f"{name}={os.environ[name]}" for name in RANKS if os.environ.get(name, "0") != "0"]


def is_first() -> bool:
    """Whether this process is the first of its run, which makes, writes and prints what is wanted once."""
    return not ranks()


def require_room(workers: int) -> None:
    """Refuse processes that fetch batches where they could not hand them over: training would wait for ever.

    Raises:
        UserError: the folder for what is temporary has too long a name.
    """
    temporary = tempfile.gettempdir()
    if workers and len(os.fsencode(temporary)) + SOCKET > LONGEST:
        raise UserError(
            f"TMPDIR={temporary}: is too long for what data.num_workers={workers} keeps there; expected at most "
            f"{LONGEST - SOCKET} bytes, or data.num_workers=0"
        )


@cache
def follow() -> None:
    """Have a process that is not its run's first say nothing and end as soon as the one that started it has.

    Training waits in collective calls, where no signal reaches Python; a thread does not.
    """
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # What Hydra would write, the first process writes.
    sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    parent = int(os.environ.get(STARTED_BY) or os.getppid())  # which may have ended while this one began

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(os.EX_TEMPFAIL)

    threading.Thread(target=wait, daemon=True).start()


def end_together() -> None:
    """Have the first process, as far as it waits for others, end as other runs do: when it is told to, or one is lost.

    Lightning would kill it where one of those that it started has ended, so that nobody learns why.
    """
    from lightning.fabric.strategies.launchers import subprocess_script

    os.environ[STARTED_BY] = str(os.getpid())
    told = obey_while_waiting(aloud=is_first())

    def end(observer: Any) -> None:
        for process in observer._child_processes:
            process.kill()
        reason, code = "another process of this run has ended, so this one does", os.EX_SOFTWARE
        if told:
            reason, code = f"stopped by {signal.Signals(told[0]).name}", 128 + told[0]
        print(f"error: {reason}", file=sys.stderr, flush=True)
        os._exit(code)

    subprocess_script._ChildProcessObserver._terminate_all = end  # type: ignore[method-assign, assignment]


def wait_for(path: Path) -> None:
    """Wait for what the first process makes.

    Raises:
        UserError: it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(f"{path}: the first process of this run has not made it within {PATIENCE} s")
        time.sleep(LOOK)


def let_first_speak() -> None:
    """Before a process reports an error, let it end if the first process meets the same one and reports it."""
    if not is_first():
        time.sleep(25 * LOOK)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended, which tells its own reason."""
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    )


def require_alike(settings: Mapping[str, object]) -> None:
    """Refuse to train with others that were started by another command; all processes of a run ask this at once.

    Raises:
        UserError: a setting has another value in one of them.
    """
    told: list[Mapping[str, object]] = [settings] * dist.get_world_size()
    dist.all_gather_object(told, settings)
    for other in told:
        for name in sorted(told[0].keys() | other.keys()):
            if told[0].get(name) != other.get(name):
                raise UserError(
                    f"{name}: one process of this run has {told[0].get(name)} and another {other.get(name)}; start the "
                    "same command on every node"
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


def in_order(values: torch.Tensor) -> torch.Tensor:
    """Values of all processes, as `castnet.data.batches.SharedBatches` shared the images, in the order of these.

    Args:
        values: one for each image that this process had, (n,).

    Returns:
        One for each image, (N,).
    """
    if not dist.is_initialized():
        return values
    gathered: list[torch.Tensor] = [values] * dist.get_world_size()
    dist.all_gather_object(gathered, values)
    whole = values.new_empty(sum(map(len, gathered)))
    for rank, share in enumerate(gathered):
        whole[rank :: len(gathered)] = share
    return whole
