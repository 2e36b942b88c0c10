"""The generated castings: an ImageFolder tree of drawn parts, with its ground truth."""

import csv
import json
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from castnet.drawn.camera import photograph
from castnet.drawn.casting import good_part
from castnet.drawn.defects import Defect, add_defects
from castnet.errors import UserError
from castnet.files import hold
from castnet.signals import told_later

# A change to the drawing must change this: a resumed run would otherwise mix two kinds of castings.
FORMAT = "castnet-generated-7"
# Images of the public set's (split, class) folders (its Kaggle page, version 2); the generated set is of their
# proportions.
PROPORTIONS = {
    ("train", "def_front"): 3758,
    ("train", "ok_front"): 2875,
    ("test", "def_front"): 453,
    ("test", "ok_front"): 262,
}
SMALLEST = 16  # below it a folder would stay empty
CLASSES = ("def_front", "ok_front")
BATCH = 16
HEADER = b"file,group,defects,boxes\n"
END_OF_JPEG = b"\xff\xd9"
Row = list[str]
Picture = NDArray[np.uint8]


def draw(seed: tuple[int, ...], defective: bool) -> tuple[Picture, list[Defect]]:
    """Draw one casting.

    Args:
        seed: the same seed draws the same casting; with and without defects it is the same part in the same light.
        defective: whether to give it defects.

    Returns:
        Grey levels, uint8 (300, 300), and what is wrong with the casting. Outside the defects' boxes the picture is,
        pixel for pixel, that of the good casting.
    """
    scene, image = good_part(_stream(seed, 0))
    defects = add_defects(image, scene, _stream(seed, 1)) if defective else []
    return photograph(image, _stream(seed, 2)), defects


def draw_pair(seed: tuple[int, ...]) -> tuple[Picture, Picture, list[Defect]]:
    """What `draw` returns for a good casting and for the same one with defects, in less time: good, defective, defects.

    Args:
        seed: the same seed draws the same casting.
    """
    scene, image = good_part(_stream(seed, 0))
    good = photograph(image, _stream(seed, 2))
    defects = add_defects(image, scene, _stream(seed, 1))
    return good, photograph(image, _stream(seed, 2)), defects


def _stream(seed: tuple[int, ...], number: int) -> np.random.Generator:
    """Part, flaws and sensor each draw from a stream of their own, so that one does not change the others."""
    return np.random.default_rng((*seed, number))


def generate(
    root: Path,
    n: int = 3000,
    seed: int = 0,
    processes: int | None = None,
    resume: bool = False,
    progress: bool = True,
    pairs: bool = False,
) -> None:
    """Draw n parts as root/{train,test}/{def_front,ok_front}/*.jpeg: each once, good or defective, or both ways.

    Beside them lie manifest.csv, with the columns file, group (the part), defects (kinds) and boxes (one for each kind,
    left:top:right:bottom in pixels, the last two exclusive), both lists joined by spaces, and generator.json, which
    says how they were made. All is written into root.partial, which takes the root's name when it is complete.

    Args:
        root: folder to make; it must not exist or be empty.
        n: number of parts, at least 16.
        seed: the same seed draws the same castings, whatever the number of processes; not negative.
        processes: how many to draw with; None takes one a core.
        resume: go on where an interrupted run with the same n and seed stopped, if there was one.
        progress: whether to show a progress bar.
        pairs: whether to draw every part both ways, in the same light and under the same file name.

    Raises:
        UserError: n is too small, the seed is negative, the root is not empty or cannot be written, the disk is full,
            another run draws there, the run is interrupted, or an interrupted one was left and `resume` is not set or
            its settings differ.
    """
    if n < SMALLEST:
        raise UserError(f"n={n}: expected at least {SMALLEST} castings, so that every split has both classes")
    if not 0 <= seed < 2**32:  # as data.generate.seed
        raise UserError(f"seed={seed}: expected 0 or more, and less than {2**32}")
    partial = root.absolute().parent / f"{root.absolute().name}.partial"
    command = f"castnet generate {shlex.quote(str(root))} --n {n} --seed {seed}{' --pairs' * pairs} --resume"
    by_hand = f"`{command}` goes on; removing {partial} starts anew"
    try:
        _require_new(root)
        if root.is_symlink() or root.is_mount() or root.resolve() == Path.cwd():  # none of which takes another's place
            raise UserError(f"{root}: is a link, a mount or the folder that you are in; name a new folder in it")
        with hold(partial):
            _require_new(root)  # whoever held it may have ended well
            done = _prepare(partial, {"format": FORMAT, "n": n, "seed": seed, "pairs": pairs}, resume, by_hand)
            _draw_all(_tasks(partial, n, seed, pairs), partial, n, done, processes or os.cpu_count() or 1, progress)
            whole, _ = _whole_parts(partial, pairs)
            if whole != n:
                raise UserError(f"{partial}: {n - whole:,} castings are missing or broken; {by_hand}")
            partial.replace(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error.strerror}); mend that, then {by_hand}") from error
    except BrokenProcessPool as error:
        raise UserError(f"{root}: a process was ended from outside, maybe for lack of memory; {by_hand}") from error
    except KeyboardInterrupt as stop:
        raise UserError(f"{root}: interrupted; {by_hand}") from stop


def _require_new(root: Path) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: exists and is not empty; nothing is overwritten, so name a new folder or remove it")


def counts(n: int) -> dict[tuple[str, str], int]:
    """How many of n castings each (split, class) folder gets, in the proportions of the public set."""
    test_share = sum(PROPORTIONS["test", name] for name in CLASSES) / sum(PROPORTIONS.values())
    shared = {}
    for split, size in (("train", n - round(n * test_share)), ("test", round(n * test_share))):
        defective, good = PROPORTIONS[split, "def_front"], PROPORTIONS[split, "ok_front"]
        shared[split, "def_front"] = round(size * defective / (defective + good))
        shared[split, "ok_front"] = size - shared[split, "def_front"]
    return shared


def _prepare(partial: Path, settings: dict[str, Any], resume: bool, by_hand: str) -> int:
    """Make the work folder, or take up the one an interrupted run left, and return how many parts are whole."""
    recorded, manifest = partial / "generator.json", partial / "manifest.csv"
    found = recorded.read_text(errors="replace") if recorded.exists() else ""
    if not found:  # it is written first, so that no casting was drawn yet
        if any(path.is_file() and path not in (recorded, manifest) for path in partial.rglob("*")):
            raise UserError(f"{partial}: holds files that are not of such a run; remove it to start anew")
        recorded.write_text(json.dumps(settings))
    elif found != json.dumps(settings):
        raise UserError(
            f"{partial}: was left by a run with other settings, {found[:200]}, and not {json.dumps(settings)}; "
            "give its own, or remove it to start anew"
        )
    elif not resume:
        raise UserError(f"{partial}: was left by an interrupted run; {by_hand}")
    for split, name in PROPORTIONS:
        (partial / split / name).mkdir(parents=True, exist_ok=True)
    manifest.touch()
    done, size = _whole_parts(partial, settings["pairs"])
    os.truncate(manifest, size)
    if not size:
        manifest.write_bytes(HEADER)
    return done


def _whole_parts(partial: Path, pairs: bool) -> tuple[int, int]:
    """How many parts the manifest has whole images of, up to the first that it has not, and where their rows end."""
    ends: list[int] = []
    with (partial / "manifest.csv").open("rb") as file:
        for line in file:
            image = partial / os.fsdecode(line.split(b",")[0])
            if not line.endswith(b"\n") or (line != HEADER and not _is_whole(image)):
                break
            ends.append((ends[-1] if ends else 0) + len(line))
    parts = max(len(ends) - 1, 0) // (1 + pairs)
    return parts, ends[parts * (1 + pairs)] if ends else 0


def _is_whole(image: Path) -> bool:
    try:
        with image.open("rb") as file:
            file.seek(-len(END_OF_JPEG), os.SEEK_END)
            return file.read() == END_OF_JPEG
    except (OSError, ValueError):  # it is missing, too short to end, or its row is zeros that a power failure left
        return False


def _draw_all(tasks: "Iterator[Task]", partial: Path, n: int, done: int, processes: int, progress: bool) -> None:
    with (
        closing(_in_order(islice(tasks, done, None), processes)) as parts,
        (partial / "manifest.csv").open("a", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        bar = {"total": n, "completed": done, "disable": not progress, "console": Console(stderr=True)}
        for rows in track(parts, f"Drawing {n:,} castings", **bar):  # type: ignore[arg-type]
            writer.writerows(rows)
            file.flush()


Task = tuple[Path, int, int, str, tuple[str, ...]]


def _tasks(root: Path, n: int, seed: int, pairs: bool) -> Iterator[Task]:
    index = 0
    for (split, name), size in counts(n).items():
        for _ in range(size):
            yield root, seed, index, split, CLASSES if pairs else (name,)
            index += 1


def _in_order(tasks: Iterator[Task], processes: int) -> Generator[list[Row]]:
    """Draw parts in parallel and yield their rows in order; only a few batches are under way at any time."""
    if processes == 1:
        yield from map(_draw_one, tasks)
        return
    # Forking a process in which PyTorch has started threads can hang, so workers start afresh.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent)
    waiting: deque[Future[list[list[Row]]]] = deque()
    try:
        while batch := list(islice(tasks, BATCH)):
            with _workers_start(), told_later():  # a pool that is half started cannot be ended
                waiting.append(pool.submit(_draw_batch, batch))
            if len(waiting) > 3 * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _workers_start() -> Iterator[None]:
    """Have processes that start do without the main module, and leave an interrupt to this process alone.

    They would import it anew, train.py and with it all of Lightning, which takes as long as to draw a thousand castings
    (`multiprocessing.spawn.get_preparation_data`, which goes by these two attributes). They inherit the signal mask.
    """
    main = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    main.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.update(kept)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_with_parent() -> None:
    """Have this process end as soon as the one that started it has, however that ended."""

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_batch(batch: list[Task]) -> list[list[Row]]:
    return [_draw_one(task) for task in batch]


def _draw_one(task: Task) -> list[Row]:
    """Draw and save one part and return its rows of the manifest."""
    root, seed, index, split, names = task
    if len(names) == 1:
        pixels, defects = draw((seed, index), defective=names[0] == "def_front")
        pictures = {names[0]: (pixels, defects)}
    else:
        good, pixels, defects = draw_pair((seed, index))
        pictures = {"def_front": (pixels, defects), "ok_front": (good, [])}
    rows = []
    for name, (pixels, defects) in pictures.items():
        file = f"{split}/{name}/casting_{index:07d}.jpeg"
        encoded = BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=92)
        (root / file).write_bytes(encoded.getvalue())
        boxes = (":".join(map(str, defect.box)) for defect in defects)
        rows.append([file, f"{index:07d}", " ".join(defect.kind for defect in defects), " ".join(boxes)])
    return rows
