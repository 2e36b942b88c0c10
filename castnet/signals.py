"""How work is stopped from outside."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from typing import NoReturn


class Stopped(SystemExit):
    """This process was told to stop by the signal `number`, and ends with 128 + that number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def obeying_signals() -> Iterator[None]:
    """Stop at once when told to: Lightning alone would end a stopped run as if it were done.

    Signals that whoever started this process had it ignore, as `nohup` does, stay ignored.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(number)

    def stop_later(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, Stopped):  # raised in a finalizer, from which Python lets nothing out
            Timer(0.1, os.kill, (os.getpid(), lost.exc_value.number)).start()
        else:
            shown(lost)

    shown, sys.unraisablehook = sys.unraisablehook, stop_later
    obeyed = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in obeyed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = shown


@contextmanager
def interruptible_threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core; where their work is interrupted, what has not begun never does.

    Decoders and ONNX Runtime release the GIL; more threads than cores would only wait for it.
    """
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        # An interrupt can leave a lock of the pool taken, so that to wait for its threads would be to wait for ever.
        pool.shutdown(wait=False, cancel_futures=True)
