"""Rows of the fault table on folders that are drawn, decoded and read; `benchmarks/faults.py` runs them."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fault_table import LONG, Ground, Tally, castnet, row, run, start, wait


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@row("`kill -9` during `castnet generate`, then resumed")
def killed_generation(ground: Ground, tally: Tally) -> None:
    room, chance = ground.room("killed-generation"), random.Random(2)
    settings = ("--n", 96, "--seed", 5)
    begin = time.monotonic()
    whole = run(*castnet("generate", room / "whole", *settings), timeout=LONG)
    seconds, expected = time.monotonic() - begin, _contents(room / "whole")
    if whole.code != 0:
        raise RuntimeError(whole.err)
    for index in range(ground.count(10)):
        root = room / f"castings{index}"
        process = start(*castnet("generate", root, *settings), start_new_session=True)
        time.sleep(chance.uniform(0.1, 1) * seconds)
        process.kill()
        process.communicate()
        orphans = ""
        try:
            wait(partial(_group_ended, process.pid), 30)
        except TimeoutError:
            orphans = "workers outlive it"
            os.killpg(process.pid, signal.SIGKILL)
        through = int(root.exists() and _contents(root) != expected)
        ran = run(*castnet("generate", root, *settings, "--resume"), timeout=LONG) if not root.exists() else None
        wrong = orphans or (f"exit code {ran.code}, {ran.err[-300:]!r}" if ran and ran.code != 0 else "")
        lost = int(not root.exists() or _contents(root) != expected)
        tally.add(
            f"castings{index}",
            lost=lost,
            let_through=through,
            traceback="Traceback" in (ran.err if ran else ""),
            wrong=wrong,
        )
        shutil.rmtree(root, ignore_errors=True)


def _has_images(folder: Path) -> bool:
    return any(folder.rglob("*.jpeg"))


def _group_ended(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return False
    return True


@row("a second `castnet generate` on one root")
def second_generation(ground: Ground, tally: Tally) -> None:
    room = ground.room("second-generation")
    for index in range(ground.count(5)):
        root = room / f"castings{index}"
        command = castnet("generate", root, "--n", 64, "--seed", 1)
        first = start(*command)
        wait(partial(_has_images, root.with_name(f"{root.name}.partial")), LONG)
        tally.refused(
            f"root {index}", run(*command, *(["--resume"] if index % 2 else [])), says="another run is at work"
        )
        first.communicate(timeout=LONG)
        rows = (root / "manifest.csv").read_text().splitlines()
        images = len(list(root.rglob("*.jpeg")))
        if first.returncode != 0 or len(set(rows)) != 65 or len(rows) != 65 or images != 64:
            tally.add(f"root {index}: what the first run drew", lost=1)


def _zero(block: Path) -> None:
    content = bytearray(block.read_bytes())
    content[128:-4] = bytes(len(content) - 132)
    block.write_bytes(content)


def _reverse(block: Path) -> None:
    pixels = np.load(block)
    np.save(block, pixels[::-1])


def _resize(block: Path) -> None:
    np.save(block, np.load(block)[:, ::2, ::2])


def _flip_one_bit(block: Path) -> None:
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "zeroed body": _zero,
    "reversed rows": _reverse,
    "another size": _resize,
    "one flipped bit": _flip_one_bit,
    "cut in half": lambda block: os.truncate(block, block.stat().st_size // 2),
    "one byte short": lambda block: os.truncate(block, block.stat().st_size - 1),
    "empty": lambda block: os.truncate(block, 0),
    "text": lambda block: block.write_text("no pixels"),
}


@row("a damaged pixel cache")
def damaged_cache(ground: Ground, tally: Tally) -> None:
    room, best = ground.room("damaged-cache"), ground.trained / "checkpoints" / "best.ckpt"
    cache = room / "cache"
    run(*ground.evaluation(best, ground.castings, room / "whole", cache), timeout=LONG)
    expected = (room / "whole" / "predictions.csv").read_text()
    for name, damage in list(DAMAGE.items())[: ground.count(len(DAMAGE))]:
        damage(next(cache.glob("*.npy")))
        folder = room / name.replace(" ", "-")
        ran = ground.forks.run(*ground.evaluation(best, ground.castings, folder, cache), timeout=LONG)
        predictions = folder / "predictions.csv"
        through = int(predictions.exists() and predictions.read_text() != expected)
        wrong = "" if ran.code == 0 and "is damaged" in ran.err else f"exit code {ran.code}, {ran.err[-300:]!r}"
        tally.add(name, let_through=through, traceback="Traceback" in ran.err, wrong=wrong)


@row("a full disk under training, drawing and evaluation")
def full_disk(ground: Ground, tally: Tally) -> None:
    room, best = ground.room("full-disk"), ground.trained / "checkpoints" / "best.ckpt"
    with ground.small_disk("small-disk", "300k") as small:
        places = {
            "pixel cache": (*ground.training, f"hydra.run.dir={room}/run", f"paths.cache_dir={small}/cache"),
            "run folder": (*ground.training, f"hydra.run.dir={small}/run"),
            "generated castings": castnet("generate", small / "castings", "--n", 200),
            "evaluation": ground.evaluation(best, ground.castings, small / "evaluation", room / "cache"),
        }
        for name, command in list(places.items())[: ground.count(len(places))]:
            tally.refused(name, ground.forks.run(*command, timeout=LONG), says="error: ")
            if any(small.rglob("*.partial-*")) or any(small.rglob("metrics.json")):
                tally.add(f"{name}: leaves what looks whole", let_through=1)
            for path in small.iterdir():
                shutil.rmtree(path)


@row("pipes, loops and links to nothing in the data folder")
def odd_files(ground: Ground, tally: Tally) -> None:
    room = ground.room("odd-files")
    makers: dict[str, Callable[[Path], object]] = {
        "pipe": lambda folder: os.mkfifo(folder / "pipe.jpeg"),
        "link to nothing": lambda folder: (folder / "link.jpeg").symlink_to("nothing.jpeg"),
        "folder named like an image": lambda folder: (folder / "folder.jpeg").mkdir(),
        "text named like an image": lambda folder: (folder / "text.jpeg").write_text("no image"),
        "loop": lambda folder: (folder / "loop").symlink_to(folder),
    }
    for name, make in list(makers.items())[: ground.count(len(makers))]:
        root = room / name.replace(" ", "-")
        shutil.copytree(ground.castings, root)
        make(root / "train" / "ok_front")
        command = (*ground.training, f"data.root={root}", f"hydra.run.dir={root}-run")
        ran = ground.forks.run(*command, timeout=LONG)
        if name in ("loop", "folder named like an image"):  # nothing is missing or twice
            same = ran.code == 0 and _counts(Path(f"{root}-run")) == _counts(ground.trained)
            tally.add(
                name,
                traceback="Traceback" in ran.err,
                wrong="" if same else f"exit code {ran.code}, {ran.err[-300:]!r}",
            )
        else:
            tally.refused(name, ran, says=str(root))


def _counts(run_folder: Path) -> Any:
    return json.loads((run_folder / "metrics.json").read_text())["data"]["counts"]
