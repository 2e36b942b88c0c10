"""Rows of the fault table on what ends or changes under a command at work; `benchmarks/faults.py` runs them."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from fault_table import TIMEOUT, VERDICTS, Ground, Ran, Tally, castnet, heed, row, run, start, wait


@row("`kill -9` over --watch")
def killed_watch(ground: Ground, tally: Tally) -> None:
    chance, room, images = random.Random(0), ground.room("watched"), sorted(ground.castings.rglob("*.jpeg"))
    seen: dict[str, int] = {}
    for index in range(ground.count(20)):
        for number in range(30):
            shutil.copy(images[number], room / f"{index}-{number}.jpeg")
        with (ground.folder / "verdicts").open("w") as verdicts:
            process = start(*castnet("predict", ground.model, "--json", "--watch", room), stdout=verdicts)
            time.sleep(chance.uniform(0.5, 4))
            process.kill()
            process.wait()
        _count(ground.folder / "verdicts", seen)
        tally.add(f"kill {index}")
    shutil.copy(images[0], room / "last.jpeg")
    with (ground.folder / "verdicts").open("w") as verdicts:
        process = start(*castnet("predict", ground.model, "--json", "--watch", room), stdout=verdicts)
        wait(partial(_holds_line, ground.folder / "verdicts"))
        second = run(*castnet("predict", ground.model, "--watch", room))
        tally.refused("a second watcher", second, says="another `castnet predict --watch`")
        with suppress(TimeoutError):  # some are lost
            wait(lambda: len(_listed(room)) == len(list(room.glob("*.jpeg"))), 60)
        process.send_signal(signal.SIGTERM)
        code = process.wait(TIMEOUT)
    _count(ground.folder / "verdicts", seen)
    lost = len(list(room.glob("*.jpeg"))) - len(seen)
    tally.add("all images after all kills", lost=lost, wrong="" if code in VERDICTS else f"exit code {code}")


def _holds_line(file: Path) -> bool:
    return "\n" in file.read_text()


def _listed(room: Path) -> set[str]:
    """The images that a watched folder's list says were inspected."""
    return {json.loads(line)[0] for line in (room / ".castnet-inspected").read_text().splitlines() if line[-1:] == "]"}


def _count(verdicts: Path, seen: dict[str, int]) -> None:
    for line in verdicts.read_text().splitlines():
        if line.endswith("}"):  # the last one may be torn
            name = json.loads(line)["file"]
            seen[name] = seen.get(name, 0) + 1


@row("a watched folder removed, made anew, or with a pipe in it")
def changed_watch(ground: Ground, tally: Tally) -> None:
    for what in ("removed", "made anew", "moved away"):
        room = ground.room(f"watch-{what}")
        process = start(*castnet("predict", ground.model, "--json", "--watch", room))
        _until_watched(room)
        if what == "moved away":
            room.rename(room.with_name("elsewhere"))
        else:
            shutil.rmtree(room)
        if what == "made anew":
            room.mkdir()
        out, err = process.communicate(timeout=TIMEOUT)
        tally.refused(what, Ran(process.returncode, out, err), says="was removed or replaced")
    room = ground.room("watch-pipe")
    os.mkfifo(room / "pipe.png")
    shutil.copy(next((ground.castings / "test").rglob("*.jpeg")), room)
    process = start(*castnet("predict", ground.model, "--json", "--watch", room))
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    wrong = "" if process.returncode == 2 else f"exit code {process.returncode}"
    tally.add("a pipe", lost=2 - sum(map(bool, lines)), wrong=wrong)


def _until_watched(room: Path) -> None:
    wait(partial(Path.exists, room / ".castnet-inspected"))


@row("Ctrl-C or SIGTERM during predict, audit, export, evaluate.py, serve and app")
def interrupted(ground: Ground, tally: Tally) -> None:
    chance, folder, model = random.Random(2), ground.folder, ground.model
    weights = ground.trained / "checkpoints" / "best.ckpt"
    commands: dict[str, Callable[[Path], tuple[object, ...]]] = {
        "predict": lambda out: castnet("predict", model, *[ground.castings] * 200),
        "audit": lambda out: castnet("audit", ground.castings, "-o", out),
        "export": lambda out: castnet("export", ground.trained, "-o", f"{out}.onnx"),
        "evaluate.py": lambda out: ground.evaluation(weights, ground.castings, out, folder / "cache"),
        "serve": lambda out: castnet("serve", model, "--port", 0),
        "app": lambda out: castnet("app", model, "--port", _free_port()),
    }
    leaves = {"audit": "/audit.html", "export": ".onnx", "evaluate.py": "/metrics.json"}
    for index in range(ground.count(48)):
        name, command = list(commands.items())[index % len(commands)]
        number = (signal.SIGINT, signal.SIGTERM)[index // len(commands) % 2]
        out = folder / f"interrupted-{index}"
        process = start(*command(out), preexec_fn=heed, stdout=subprocess.DEVNULL)
        # Until then evaluate.py imports, and is ended by the signal itself.
        wait(out.exists if name == "evaluate.py" else partial(_is_at_work, process))
        time.sleep(chance.uniform(0, 6 if name in ("serve", "app", "export") else 1.5))
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
        codes = [128 + number if name == "evaluate.py" else -number]
        # One that was quicker than the signal has ended well, and so has a server that is told to end.
        if name in ("serve", "app") or (name in leaves and Path(f"{out}{leaves[name]}").exists()):
            codes.append(0)
        tally.refused(f"{number.name}, {name}", Ran(process.returncode, "", err), codes=codes)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_at_work(process: "subprocess.Popen[str]") -> bool:
    """Whether a `castnet` command has begun its work, for which alone it imports numpy, or has ended."""
    return process.poll() is not None or "numpy" in Path(f"/proc/{process.pid}/maps").read_text()
