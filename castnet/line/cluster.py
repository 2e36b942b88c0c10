"""Verdicts on an archive by a Ray cluster: each node reads the files itself, so all must reach them by one path."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from castnet.errors import UserError
from castnet.line.inspector import Inspector, Verdict

BATCH = 64  # images that a worker is handed at once


class _Judge:
    """What every worker keeps: its inspector."""

    def __init__(self, model: str) -> None:
        self.inspector = Inspector(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        results = list(self.inspector.inspect_many([Path(file) for file in batch["file"]]))
        # Columns are of one type each, so that what cannot be read has an empty verdict.
        nothing = Verdict("", False, math.nan, math.nan, math.nan)
        verdicts = [asdict(result if isinstance(result, Verdict) else nothing) for result in results]
        columns = {name: [verdict[name] for verdict in verdicts] for name in asdict(nothing)}
        return columns | {"error": [str(result) if isinstance(result, UserError) else "" for result in results]}


def inspect_on_ray(model: Path, files: Sequence[Path]) -> Iterator[Verdict | UserError]:
    """Judge files on the cluster that RAY_ADDRESS names, or on this machine where it names none.

    Args:
        model: what `castnet export` wrote, at a path that every node knows.
        files: images, the same.

    Yields:
        For every file, in their order, its verdict or why it cannot be read.

    Raises:
        UserError: no cluster answers.
    """
    if not ray.is_initialized():
        try:
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: no cluster answers ({error})") from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)  # type: ignore[no-untyped-call]
    rows = ray.data.from_items([{"file": str(file.absolute())} for file in files])
    judged = rows.map_batches(
        _Judge,
        fn_constructor_args=[str(model.absolute())],
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for file, row in zip(files, judged.iter_rows(), strict=True):
        reason = row.pop("error")
        yield UserError(reason.replace(str(file.absolute()), str(file))) if reason else Verdict(**row)
