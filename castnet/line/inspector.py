"""An image to a verdict, on ONNX Runtime and without torch."""

import ctypes
import hashlib
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import Grey, Photograph, decode, open_file
from castnet.imaging.overlay import overlay
from castnet.line.card import VERDICTS, read_card
from castnet.signals import interruptible_threads

Source = Path | str | bytes | bytearray | memoryview | Photograph | NDArray[np.uint8]

NONE, FIRST = np.empty(0, np.int64), np.zeros(1, np.int64)
MAX_MODEL = 2**29  # bytes; a network for 1,024 pixels has half of that
# An entry `location` of a tensor, in the encoding of protocol buffers, which drop a tag's bits beyond 32: weights in a
# file beside, which may be another tomorrow, or a device.
WEIGHTS_ELSEWHERE = re.compile(rb"(?:\x0a|\x8a\x80*[\x00\x10\x20\x30\x40\x50\x60\x70])(?:\x08|\x88\x80*\x00)location")
SIGNATURE = {
    "images": "tensor(uint8)",
    "explained": "tensor(int64)",
    "logits": "tensor(float)",
    "p_defect": "tensor(float)",
    "evidence": "tensor(float)",
}
SIGNATURE_UNSURE = {"verdicts": "tensor(int64)", "unfamiliarity": "tensor(float)"}  # of models since 0.2, too
M_MMAP_THRESHOLD, OWN_MAPPING = -3, 2**22  # the number of the setting in malloc.h, and bytes
UNSURE = "unsure"
ROUNDING = 1e-6  # of a probability in float32
AHEAD = 64  # images that are under way at once


@dataclass(frozen=True)
class Verdict:
    """What the model says of one image.

    Attributes:
        verdict: `good`, `defective` or `unsure`.
        reason: why it is unsure, `unfamiliar` (not what the model was trained on) or `doubtful` (too close to call), or
            None.
        class_name: the class it is taken for; `unsure` if for none.
        is_defect: whether it must not pass as good: False for `good` alone, for who asks no more than that.
        p_defect: P(defect), calibrated where training was.
        threshold: no casting is good whose P(defect) reaches it.
        unfamiliarity: how unlike the training images it is; unfamiliar from 1 on, 0 where the model does not know.
        latency_ms: milliseconds from the file, bytes or array to here.
    """

    verdict: str
    reason: str | None
    class_name: str
    is_defect: bool
    p_defect: float
    threshold: float
    unfamiliarity: float
    latency_ms: float


class Inspector:
    """A model that `castnet export` wrote. One inspector serves any number of threads at once.

    Args:
        model: the ONNX file.

    Attributes:
        card: all that the file says of its model: class_names, defect_class, threshold, defective_from, verdicts,
            temperature, image_size, evidence_grid (see `castnet.model.heatmap.cell_grid`), data (source, root,
            protocol, counts, …), validation and test (metrics by name), reference (P(defect) and unfamiliarity of some
            validation images), finished (whether its training run came to its end), castnet (version), exported.
        digest: SHA-256 of the file that was read, in hexadecimal; by now another may have its name.

    Raises:
        UserError: the file is missing, or `castnet export` did not write it.
    """

    def __init__(self, model: Path | str) -> None:
        _give_memory_back()
        if Path(model).is_dir():
            raise UserError(f"{model}: is a folder; expected a model that `castnet export` wrote, before any images")
        if not Path(model).is_file():
            raise UserError(f"{model}: no such file; `castnet export RUN -o {model}` makes one of a training run")
        options = ort.SessionOptions()
        # Images are judged in parallel, one a thread; a network this small gains nothing from more threads than that.
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # which would keep what the largest image took
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            with open_file(Path(model), MAX_MODEL) as file:
                content = file.read()
            self.digest = hashlib.sha256(content).hexdigest()
            # The word alone first: an expression takes a tenth of a second to read megabytes of weights.
            if b"location" in content and WEIGHTS_ELSEWHERE.search(content):
                raise ValueError("it has weights in other files")
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.card = read_card(self._session.get_modelmeta().custom_metadata_map["castnet"])
            signature = {value.name: value.type for value in self._session.get_inputs() + self._session.get_outputs()}
            expected = SIGNATURE | (SIGNATURE_UNSURE if SIGNATURE_UNSURE.keys() & signature.keys() else {})
            if not expected.items() <= signature.items():
                raise ValueError(f"it takes and gives {signature}")
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise UserError(f"{model}: not a model that `castnet export` wrote ({str(error)[:160]})") from error
        self.threshold: float = self.card["threshold"]
        self._defect: str = self.card["defect_class"]
        self._good = next(name for name in self.card["class_names"] if name != self._defect)
        # Models written before 0.2 know two verdicts.
        self._verdicts = self.card.get("verdicts") or VERDICTS[:2]
        self._outputs = ["logits", "p_defect", *(SIGNATURE_UNSURE if "verdicts" in signature else [])]

    def inspect(self, source: Source) -> Verdict:
        """Judge one image.

        Args:
            source: a file, the bytes of one, or pixels, uint8 (height, width) or red, green, blue (height, width, 3).

        Raises:
            UserError: it cannot be read as an image, or the model gives no number for it.
        """
        start = time.perf_counter()
        # Logits are asked for to be finite: an infinite one would be a probability like any other.
        given = self._run(self._outputs, _grey(source), NONE)
        for output, value in zip(self._outputs, given, strict=True):
            if value.size != 1:
                raise UserError(f"the model gives {output} of shape {value.shape} for an image; expected one number")
        _, p_defect, *others = (value.item() for value in given)
        if not 0 <= p_defect <= 1:
            raise UserError(f"the model gives P(defect) = {p_defect:g}; expected a probability")
        code, unfamiliarity = others or (int(p_defect >= self.threshold), 0.0)
        if not 0 <= code < len(self._verdicts):
            raise UserError(f"the model gives verdict {code}; expected one of {', '.join(self._verdicts)}")
        milliseconds = 1000 * (time.perf_counter() - start)
        verdict = self._verdicts[code]
        if verdict == "good" and p_defect > self.threshold + ROUNDING:
            raise UserError(
                f"the model calls good what it gives P(defect) = {p_defect:g}, beyond its card's threshold "
                f"{self.threshold:g}; export it anew"
            )
        sure = verdict in ("good", "defective")  # whatever the classes are called, and one may be `unsure`
        name = {"good": self._good, "defective": self._defect}.get(verdict, UNSURE)
        return Verdict(
            verdict=verdict if sure else UNSURE,
            reason=None if sure else verdict,
            class_name=name,
            is_defect=verdict != "good",
            p_defect=p_defect,
            threshold=self.threshold,
            unfamiliarity=unfamiliarity,
            latency_ms=milliseconds,
        )

    def heatmap(self, source: Source) -> NDArray[np.uint8]:
        """The image as grey levels, tinted red where the evidence for a defect lies: uint8 (height, width, 3).

        Args:
            source: as for `inspect`.

        Raises:
            UserError: it cannot be read as an image.
        """
        grey = _grey(source)
        (evidence,) = self._run(["evidence"], grey, FIRST)
        if evidence.ndim != 2 or len(set(evidence.shape)) != 1:
            raise UserError(f"the model gives evidence of shape {evidence.shape}; expected (cells, cells)")
        return overlay(grey, evidence, self.card["evidence_grid"])

    def _run(self, outputs: list[str], grey: Grey, explained: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Some of the model's outputs for one image, without the dimension of the batch.

        Raises:
            UserError: the model cannot judge it, or what it gives is no number: neither is a verdict.
        """
        try:
            given = self._session.run(outputs, {"images": grey[None], "explained": explained})
        except Exception as error:  # as of a model: its exceptions share no base class
            raise UserError(f"the model cannot judge an image of {grey.shape} pixels ({str(error)[:160]})") from error
        for output, values in zip(outputs, given, strict=True):
            if values.shape[:1] != (1,):
                raise UserError(f"the model gives {output} of shape {values.shape}; expected (1, …) for one image")
            if not np.isfinite(values).all():
                raise UserError(f"the model gives {output} that is not finite; train it anew, with a lower model.lr")
        return [values[0] for values in given]

    def inspect_many(self, sources: Iterable[Source]) -> Iterator[Verdict | UserError]:
        """Judge images in parallel, on all cores.

        A batch of them takes the network as long as one after the other, so none has to wait for others of its size.

        Args:
            sources: as for `inspect`; they are taken up as verdicts are fetched.

        Yields:
            For every source, in their order, its verdict or why it cannot be read.
        """
        with interruptible_threads() as pool:
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


def _give_memory_back() -> None:
    """Have the C library return every block of `OWN_MAPPING` bytes when it is freed.

    glibc alone raises that size to 32 MB once such a block was freed (mallopt(3)), and a process that judged one large
    image would stay as large.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)


def _grey(source: Source) -> Grey:
    if isinstance(source, np.ndarray):
        is_colour = source.ndim == 3 and source.shape[2] == 3
        if source.dtype != np.uint8 or not source.size or not (source.ndim == 2 or is_colour):
            raise UserError(
                f"array {source.dtype} {source.shape}: expected uint8 (height, width) or (height, width, 3)"
            )
        return np.asarray(Image.fromarray(source).convert("L"))
    if isinstance(source, bytearray | memoryview):  # of which an error would say all that it holds
        source = bytes(source)
    return decode(Path(source) if isinstance(source, str) else source)
