"""Verdicts on an archive by a Ray cluster, whose nodes must all reach its files and the model by the same paths."""

import logging
import os
import pickle
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from castnet.errors import UserError
from castnet.files import digest_of
from castnet.line.inspector import Inspector, Verdict
from castnet.ray_cluster import connect

BATCH = 64  # images that a worker is handed at once


class _OtherModel(UserError):
    """A node has not the model that was asked for."""


class _Judge:
    """What every worker keeps: its inspector."""

    def __init__(self, model: str, digest: str) -> None:
        self.refused: _OtherModel | None = None  # Ray would tell of an exception here only that a worker has died
        try:
            self.inspector = Inspector(model)
            if self.inspector.digest != digest:
                raise UserError(f"{model}: is another model there")
        except (UserError, OSError) as error:
            self.refused = _OtherModel(
                f"--on ray: {error} (on {socket.gethostname()}); every node reads the model by this path"
            )

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        results: Iterable[Verdict | UserError]
        if self.refused:
            results = [self.refused] * len(batch["file"])
        else:
            results = self.inspector.inspect_many(Path(os.fsdecode(file)) for file in batch["file"])
        # Pickled, so that a table of any kind of column carries them as they are.
        return {"result": np.array([pickle.dumps(result) for result in results], dtype=object)}


def inspect_on_ray(model: Path, files: Sequence[Path]) -> Iterator[Verdict | UserError]:
    """Judge files on the cluster that RAY_ADDRESS names, or on one of this machine alone where it names none.

    Args:
        model: what `castnet export` wrote, at a path that every node knows.
        files: images, likewise.

    Returns:
        For every file, in their order, its verdict or why it cannot be read.

    Raises:
        UserError: no cluster answers, or a node has not the model.
    """
    connect("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
    return _judge(model, files)


def _judge(model: Path, files: Sequence[Path]) -> Iterator[Verdict | UserError]:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Names of files may hold bytes that are no text.
    rows = ray.data.from_items([{"file": os.fsencode(file.absolute())} for file in files])
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    judged = rows.map_batches(
        _Judge,
        fn_constructor_args=[str(model.absolute()), digest_of(model)],
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=max(1, min(cores - 1, len(files) // BATCH))),
    )
    for file, row in zip(files, judged.iter_rows(), strict=True):
        result: Verdict | UserError = pickle.loads(row["result"])
        if isinstance(result, _OtherModel):
            raise result
        if isinstance(result, UserError):  # it names the file as the caller does
            result = UserError(str(result).replace(str(file.absolute()), str(file)))
        yield result
