"""How work is stopped from outside."""

import _thread
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from types import FrameType

DEAF_SECONDS = 5  # after which a process that has not heard of a signal is taken to wait for others
_heard: list[int] = []  # no Event, whose lock a second signal may find taken by the first one's handler

# These have taken a lock and not said so yet, or are about to let it go, or have woken who waits and not crossed it off
# the list: an exception that is raised there leaves it taken, or wakes one that has gone, and others wait for ever.
_TAKING = {
    getattr(kind, name).__code__
    for kind, names in {
        threading.Condition: ("__enter__", "__exit__", "notify"),
        logging.Handler: ("acquire", "release"),
        logging: ("_acquireLock", "_releaseLock"),  # until Python 3.12
    }.items()
    for name in names
    if hasattr(kind, name)
}


def _send_again(number: int, seconds: float, over: list[bool]) -> None:
    def send() -> None:
        time.sleep(seconds)
        if not over:
            os.kill(os.getpid(), number)

    _thread.start_new_thread(send, ())  # a Thread takes locks while it starts


class _Told(BaseException):
    """What a signal raises; where that gets lost, the signal is sent again.

    Finalizers let no exception out, and what imports a module may take any for a sign that the module is missing.
    """

    def __init__(self, number: int, over: list[bool]) -> None:
        self.number, self._over = number, over
        super().__init__(128 + number)

    def __del__(self) -> None:
        if hasattr(self, "_over") and not self._over:  # another signal may come while this one is made
            _send_again(self.number, 0.1, self._over)


class Stopped(_Told, SystemExit):
    """This process was told to stop by the signal `number`, and ends with 128 + that number."""

    numbers = (signal.SIGINT, signal.SIGTERM)


class Interrupted(_Told, KeyboardInterrupt):
    """Somebody pressed Ctrl-C; any other signal ends the process as it ends any."""

    numbers = (signal.SIGINT,)


@contextmanager
def obeying_signals(kind: type[Stopped] | type[Interrupted] = Stopped) -> Iterator[list[int]]:
    """Stop at once when told to: Lightning alone would end a stopped run as if it were done.

    Signals that whoever started this process had it ignore, as `nohup` does, stay ignored.

    Args:
        kind: what its `numbers` raise in the main thread.

    Yields:
        The signals that came so far.
    """
    told: list[int] = []
    late: list[int] = []  # what came too late to be heard here
    over: list[bool] = []

    def stop(number: int, frame: FrameType | None) -> None:
        while frame and frame.f_globals is globals():  # it comes while another one is heard
            frame = frame.f_back
        if over:
            late.append(number)
            return
        if frame and frame.f_code in _TAKING:
            late.append(number)
            _send_again(number, 0.001, over)
            return
        told.append(number)
        _heard.append(number)
        raise kind(number, over)

    def silent(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, kind):  # which comes again
            shown(lost)

    shown, sys.unraisablehook = sys.unraisablehook, silent
    obeyed = [number for number in kind.numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in obeyed}
    try:
        for number in obeyed:
            signal.signal(number, stop)
        yield told
    finally:
        over.append(True)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = shown
        if late and not told:
            signal.raise_signal(late[0])


@contextmanager
def told_later() -> Iterator[None]:
    """Have the main thread hear of a signal when the block ends: what is done there must not be left half done."""
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    heard = [number for number in Stopped.numbers if is_main and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def obey_while_waiting(aloud: bool) -> list[int]:
    """Have this process end when it is told to also while it waits for others, where no signal reaches Python.

    What waits in a collective call runs no handler. A thread learns of the signal, too, and ends the process if
    `obeying_signals` has heard of none within 5 s, which is long for any one call that does not wait.

    Args:
        aloud: whether to say so.

    Returns:
        The signals that have come to this process by the time that it is looked at.
    """
    told: list[int] = []
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            number = os.read(reading, 1)[0]
            if number not in Stopped.numbers:
                continue
            told.append(number)
            if not _heard:
                time.sleep(DEAF_SECONDS)
            if not _heard:
                if aloud:
                    print(f"error: stopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
                os._exit(128 + number)

    Thread(target=watch, daemon=True).start()
    return told


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
