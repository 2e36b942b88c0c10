"""An image to a verdict, on ONNX Runtime and without torch."""

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import Grey, decode
from castnet.imaging.overlay import overlay

Source = Path | str | bytes | NDArray[np.uint8]

NONE, FIRST = np.empty(0, np.int64), np.zeros(1, np.int64)
AHEAD = 64  # images that are under way at once


@dataclass(frozen=True)
class Verdict:
    """What the model says of one image.

    Attributes:
        class_name: the class it is taken for.
        is_defect: whether that is the defective one.
        p_defect: P(defect), calibrated where training was.
        threshold: a casting is called defective if P(defect) reaches it.
        latency_ms: milliseconds from the file, bytes or array to here.
    """

    class_name: str
    is_defect: bool
    p_defect: float
    threshold: float
    latency_ms: float


class Inspector:
    """A model that `castnet export` wrote. One inspector serves any number of threads at once.

    Args:
        model: the ONNX file.

    Attributes:
        card: all that the file says of its model: class_names, defect_class, threshold, temperature, image_size, data
            (source, root, protocol, counts, …), validation and test (metrics by name), castnet (version), exported.

    Raises:
        UserError: the file is missing, or `castnet export` did not write it.
    """

    def __init__(self, model: Path | str) -> None:
        if not Path(model).is_file():
            raise UserError(f"{model}: no such file; `castnet export RUN -o {model}` makes one of a training run")
        options = ort.SessionOptions()
        # Images are judged in parallel, one a thread; a network this small gains nothing from more threads than that.
        options.intra_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.card: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map["castnet"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{model}: not a model that `castnet export` wrote ({reason})") from error
        self.threshold: float = self.card["threshold"]
        self._defect: str = self.card["defect_class"]
        self._good = next(name for name in self.card["class_names"] if name != self._defect)

    def inspect(self, source: Source) -> Verdict:
        """Judge one image.

        Args:
            source: a file, the bytes of one, or pixels, uint8 (height, width) or red, green, blue (height, width, 3).

        Raises:
            UserError: it cannot be read as an image.
        """
        start = time.perf_counter()
        (p_defect,) = self._session.run(["p_defect"], {"images": _grey(source)[None], "explained": NONE})
        is_defect = bool(p_defect[0] >= self.threshold)
        milliseconds = 1000 * (time.perf_counter() - start)
        name = self._defect if is_defect else self._good
        return Verdict(name, is_defect, p_defect[0].item(), self.threshold, milliseconds)

    def heatmap(self, source: Source) -> NDArray[np.uint8]:
        """The image as grey levels, tinted red where the evidence for a defect lies: uint8 (height, width, 3).

        Args:
            source: as for `inspect`.

        Raises:
            UserError: it cannot be read as an image.
        """
        grey = _grey(source)
        (evidence,) = self._session.run(["evidence"], {"images": grey[None], "explained": FIRST})
        return overlay(grey, evidence[0], self.card["evidence_grid"])

    def inspect_many(self, sources: Iterable[Source]) -> Iterator[Verdict | UserError]:
        """Judge images in parallel, on all cores.

        A batch of them takes the network as long as one after the other, so none has to wait for others of its size.

        Args:
            sources: as for `inspect`; they are taken up as verdicts are fetched.

        Yields:
            For every source, in their order, its verdict or why it cannot be read.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting: deque[Future[Verdict | UserError]] = deque()
            for source in sources:
                waiting.append(pool.submit(self._inspect_or_say_why, source))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _inspect_or_say_why(self, source: Source) -> Verdict | UserError:
        try:
            return self.inspect(source)
        except UserError as error:
            return error


def _grey(source: Source) -> Grey:
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
            raise UserError(
                f"array {source.dtype} {source.shape}: expected uint8 (height, width) or (height, width, 3)"
            )
        return np.asarray(Image.fromarray(source).convert("L"))
    return decode(Path(source) if isinstance(source, str) else source)
