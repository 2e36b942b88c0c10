"""Rows of the fault table on models that are not what they seem and on the server, for `benchmarks/faults.py`."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import torch
from fault_line import samples
from fault_table import VERDICTS, Ground, Tally, castnet, row, run, start
from load import Client
from PIL import Image

NESTED = 100_000  # brackets


def _with_card(model: onnx.ModelProto, card: str) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.metadata_props[:]
    changed.metadata_props.add(key="castnet", value=card)
    return changed.SerializeToString()


def _elsewhere(model: onnx.ModelProto, location: str) -> bytes:
    """A model that keeps its largest tensor in another file."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = max(changed.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(len(tensor.raw_data)))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return changed.SerializeToString()


def _filled(model: onnx.ModelProto, value: float) -> bytes:
    """A model whose largest tensor holds one value everywhere."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = max(changed.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, value, dtype=np.float32).tobytes()
    return changed.SerializeToString()


def hostile(model: Path, room: Path) -> dict[str, bytes]:
    """Files that look like a model and must not judge anything."""
    content, whole = model.read_bytes(), onnx.load(model)
    card = json.loads(next(entry.value for entry in whole.metadata_props if entry.key == "castnet"))
    tensor = max(whole.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (room / "beside.bin").write_bytes(tensor.raw_data)
    os.mkfifo(room / "pipe")

    def but(**changed: Any) -> bytes:
        return _with_card(whole, json.dumps({**card, **changed}))

    return {
        "empty": b"",
        "text": b"no model",
        "half": content[: len(content) // 2],
        "without a card": _with_card(whole, ""),
        "a card that is a list": _with_card(whole, "[1]"),
        "a card of brackets": _with_card(whole, "[" * NESTED),
        "a card of 100 MB": _with_card(whole, json.dumps({**card, "note": "x" * 100_000_000})),
        "a threshold that is no number": but(threshold=float("nan")),
        "an infinite threshold": _with_card(whole, json.dumps({**card, "threshold": 0}).replace(": 0,", ": 1e999,", 1)),
        "a threshold above 1": but(threshold=1.5),
        "a threshold below 0": but(threshold=-0.1),
        "a threshold in words": but(threshold="0.5"),
        "a threshold that is a truth": but(threshold=True),
        "one class": but(class_names=["ok_front"]),
        "one class twice": but(class_names=["ok_front", "ok_front"]),
        "classes that are numbers": but(class_names=[1, 2]),
        "another defect": but(defect_class="crack"),
        "data that is a path": but(data="/etc/passwd"),
        "counts in words": but(data={**card["data"], "counts": {"train": {"def_front": "many"}}}),
        "metrics in words": but(validation={"accuracy": "good"}),
        "a grid of nothing": but(evidence_grid=[]),
        "weights beside": _elsewhere(whole, "beside.bin"),
        "weights in /etc": _elsewhere(whole, "/etc/passwd"),
        "weights above": _elsewhere(whole, "../../../../../../etc/passwd"),
        "weights in a pipe": _elsewhere(whole, "pipe"),
        "weights in a device": _elsewhere(whole, "/dev/zero"),
        "weights that are no number": _filled(whole, float("nan")),
        "weights that are infinite": _filled(whole, float("inf")),
        "weights that overflow": _filled(whole, 3e38),
    }


@row("models that `castnet export` did not write so")
def hostile_models(ground: Ground, tally: Tally) -> None:
    room, casting = ground.room("models"), next((ground.castings / "test").rglob("*.jpeg"))
    for name, content in hostile(ground.model, room).items():
        file = room / "model.onnx"
        file.write_bytes(content)
        ran = run(*castnet("predict", file, casting), cwd=room)
        # A model that loads and gives no number is told for each image, in the table.
        said = ran.err.strip().startswith("error: ") or "not read" in ran.out
        wrong = "" if ran.code == 2 and said else f"exit code {ran.code}, {ran.out[-300:]!r} {ran.err[-300:]!r}"
        tally.add(name, let_through=int(ran.code in VERDICTS), traceback="Traceback" in ran.err, wrong=wrong)
    for what in (room, room / "pipe", Path("/dev/zero"), room / "nowhere"):
        says = "is a folder" if what == room else "no such file"
        tally.refused(str(what), run(*castnet("predict", what, casting)), says=says)


@row("checkpoints of runs that did not end, exported")
def unfinished(ground: Ground, tally: Tally) -> None:
    room = ground.room("unfinished")
    (room / "runs/a/checkpoints").mkdir(parents=True)
    checkpoint = torch.load(ground.trained / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**checkpoint, "finished": False}, room / "runs/a/checkpoints/best.ckpt")
    out = room / "model.onnx"
    for source in (
        room / "runs/a",
        room / "runs/a/checkpoints/best.ckpt",
        ground.trained / "checkpoints" / "last.ckpt",
    ):
        # Beside the best weights of a run that ended, those are named.
        says = "no threshold was chosen for it"
        tally.refused(source.name, run(*castnet("export", source, "-o", out)), says=says)
        tally.add(f"{source.name} leaves nothing", let_through=int(out.exists()))
    tally.refused("app", run(*castnet("app"), cwd=room), says="its run did not end")
    ran = run(*castnet("export", room / "runs/a", "-o", out, "--unfinished"))
    said = "unfinished" in ran.out and '"finished": false' in out.read_bytes().decode(errors="replace")
    tally.add("asked for", wrong="" if ran.code == 0 else ran.err, let_through=int(not said))


@contextmanager
def serving(model: Path, files: int = 1024) -> "Iterator[tuple[subprocess.Popen[str], int, Path]]":
    """A server that may have so many files open, its port, and the file with what it says."""
    log = model.with_suffix(".log")
    with log.open("w") as said:
        process = start(
            "sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *castnet("serve", model, "--port", 0), stderr=said
        )
    assert process.stdout
    found = re.search(r":(\d+)/inspect", process.stdout.readline())
    assert found, log.read_text()
    try:
        yield process, int(found[1]), log
    finally:
        process.kill()
        process.wait()


def post(port: int, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/inspect", body=body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def bodies() -> dict[str, bytes]:
    """What a client may send instead of an image of a casting."""
    found = {"nothing": b"", "text": b"text", "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF"}
    pixels = Image.fromarray(np.zeros((32, 32), np.uint8))
    for kind in ("EPS", "GIF", "AVIF", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "PDF", "SGI", "IM", "SPIDER"):
        buffer = BytesIO()
        (pixels.convert("F") if kind == "SPIDER" else pixels.convert("RGB")).save(buffer, kind)
        found[kind] = buffer.getvalue()
    for width, height in ((1_000_001, 1), (1, 2_000_001), (40_001, 1), (1, 40_001), (16_384, 16_384), (60_000, 1000)):
        buffer = BytesIO()
        Image.new("L", (width, height)).save(buffer, "PNG")
        found[f"{width} × {height}"] = buffer.getvalue()
    for kind, images in samples().items():
        found[f"half a {kind}"] = images[0][: len(images[0]) // 2]
    found["20 MB of noise"] = np.random.default_rng(0).bytes(20_000_001)
    return found


@row("bodies that are no image of a casting, posted to serve")
def hostile_bodies(ground: Ground, tally: Tally) -> None:
    image = next((ground.castings / "test").rglob("*.jpeg")).read_bytes()
    largest = BytesIO()
    Image.new("RGB", (8000, 8000)).save(largest, "PNG")
    with serving(ground.model) as (process, port, log):
        post(port, image)
        before = psutil.Process(process.pid).memory_info().rss
        for name, body in bodies().items():
            status, text = post(port, body)
            wrong = "" if status in (413, 422) else f"{status}, {text}"
            tally.add(name, let_through=int(status == 200), traceback="Traceback" in log.read_text(), wrong=wrong)
            log.write_text("")
        for _ in range(3):
            post(port, largest.getvalue())
        status, text = post(port, image)
        grown = (psutil.Process(process.pid).memory_info().rss - before) / 2**20
        wrong = f"keeps {grown:.0f} MiB" if grown > 64 else "" if status == 200 else text
        tally.add("memory after them and three images of 64 million pixels", wrong=wrong)


@row("connections that say nothing, more than there may be open files")
def silent(ground: Ground, tally: Tally) -> None:
    for files, count, beginning in (
        (64, 70, b""),
        (64, 900, b""),
        (128, 900, b"POST /inspect HTTP/1.1\r\nHost"),
        (64, 70, b"\0\n"),
    ):
        with serving(ground.model, files) as (process, port, log):
            silents = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
            for connection in silents:
                with suppress(OSError):  # its place was given to another
                    connection.sendall(beginning)
            slowest = 0.0
            for _ in range(20):
                begin = time.monotonic()
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                client.request("GET", "/health")
                client.getresponse().read()
                client.close()
                slowest = max(slowest, time.monotonic() - begin)
                time.sleep(0.4)
            left = len(os.listdir(f"/proc/{process.pid}/fd"))
            lines = len(log.read_text().splitlines())
            wrong = f"{lines} lines of log" if lines > 40 else f"health after {slowest:.0f} s" if slowest > 5 else ""
            wrong = wrong or (f"{left} files still open" if left > 24 else "")
            tally.add(f"{count} at ulimit -n {files}", traceback="Traceback" in log.read_text(), wrong=wrong)
            for connection in silents:
                connection.close()


@row("64 clients for 60 s, and SIGTERM under their load")
def clients(ground: Ground, tally: Tally) -> None:
    images = [file.read_bytes() for file in sorted((ground.castings / "test").rglob("*.jpeg"))]
    with serving(ground.model) as (process, port, log):
        stop = threading.Event()
        workers = [Client(port, images, stop) for _ in range(64)]
        for worker in workers:
            worker.start()
        time.sleep(max(2.0, 60 * min(1.0, ground.scale)))
        process.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.join(60)
        outcomes = sum((worker.outcomes for worker in workers), Counter[str]())
        said = log.read_text()
    for outcome, count in outcomes.items():
        lost = count if outcome.startswith("lost") else 0
        tally.tries += count
        tally.survived += count - lost
        tally.lost += lost
        if lost or (outcome.startswith("5") and outcome != "503"):
            tally.wrongs.append(f"{outcome}: {count}")
    tally.add("the log", traceback="Traceback" in said)
