"""A verdict for who asks, on record, with another model's beside it."""

import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import BoundedSemaphore

from castnet.errors import UserError
from castnet.line.inspector import Inspector, Verdict
from castnet.line.predict import Record

Judge = Callable[[bytes], Verdict]
WAITING = 64  # images that a shadow may be behind


@contextmanager
def judging(inspector: Inspector, record: Record | None, shadow: Path | None) -> Iterator[Judge]:
    """What gives a verdict on a body and records it, the shadow's beside it, without the client waiting for either.

    Raises:
        UserError: no such shadow, or one without a record.
    """
    if record is None:
        if shadow is not None:
            raise UserError("--shadow: its verdicts go nowhere without --record")
        yield inspector.inspect
        return
    with ExitStack() as stack:
        recorder = stack.enter_context(record("serve", inspector))
        beside = None if shadow is None else Inspector(shadow)
        shadows = None if beside is None else stack.enter_context(record("shadow", beside))
        left_out = itertools.count()  # whose `next` is one step, which no other thread comes between
        pool, places = stack.enter_context(ThreadPoolExecutor(1, "shadow")), BoundedSemaphore(WAITING)

        def judge_beside(body: bytes) -> None:
            try:
                if beside and shadows:
                    shadows.put("", body, beside.inspect(body))
            except UserError:
                pass  # the shadow answers nobody
            finally:
                places.release()

        def judge(body: bytes) -> Verdict:
            verdict = inspector.inspect(body)
            recorder.put("", body, verdict)
            if shadows and places.acquire(blocking=False):
                pool.submit(judge_beside, body)
            elif shadows:  # it cannot follow
                next(left_out)
            return verdict

        yield judge
        if missed := next(left_out):
            print(f"--shadow {shadow}: could not follow, and did not judge {missed:,} images", file=sys.stderr)
