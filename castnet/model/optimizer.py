"""Optimizers by name, made from plain values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    f"torch.optim.{name}": getattr(torch.optim, name)
    for name in ("SGD", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")
}


def make_optimizer(
    settings: Mapping[str, Any], parameters: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float
) -> Optimizer:
    """Make an optimizer from plain values, which may come from a checkpoint and so name no code to run.

    Args:
        settings: `_target_`, one of `OPTIMIZERS`, and its arguments.
        parameters: what it optimizes, or groups of it.
        lr: learning rate of those that have none of their own.

    Raises:
        ValueError: it is none of these, or refuses its arguments.
    """
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    if (name := str(settings.get("_target_"))) not in OPTIMIZERS:
        raise ValueError(f"_target_={name}: expected one of {', '.join(OPTIMIZERS)}")
    try:
        return OPTIMIZERS[name](parameters, lr=lr, **arguments)
    except Exception as error:  # each of them has its own
        raise ValueError(str(error)) from error


def tried(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, if an optimizer takes them and can make a step.

    Raises:
        ValueError: it does not.
    """
    weights = torch.zeros(1, requires_grad=True)
    weights.grad = torch.zeros(1)
    optimizer = make_optimizer(settings, [weights], lr=1e-3)
    try:
        optimizer.step()
    except Exception as error:
        raise ValueError(str(error)) from error
    return settings
