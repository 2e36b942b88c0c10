"""Rows of the fault table on the way from a folder to a checkpoint; `benchmarks/faults.py` runs them."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_table import Ground, Ran, Skip, Tally, castnet, row, run, script, start, wait

LONG = 900.0  # seconds after which a training run counts as hanging
# The classes of wrong settings; every one must be refused before training begins.
OVERRIDES = """
seed=-1 seed=100000000000 seed=nan seed=null seed=[1] model.one_cycle_warmup=2 model.one_cycle_warmup=-0.1
model.lr=1e400 model.lr=-1 model.lr=fast model.lr=null model.mean=nan model.mean=5 model.std=0 model.dropout=1
model.threshold=nan model.temperature=0 +model.foo=1 model._target_=os.system model._target_=nowhere.Nothing
model._target_=torch.nn.Linear model.optimizer=adam model.optimizer._target_=os.system +model.optimizer.foo=1
+model.optimizer.betas=[nan,0.9] +model.optimizer.eps=-1 +model.optimizer.foreach=true data.num_workers=-1
data.num_workers=100000 data.groups=X.png data.groups=nowhere.csv data.assignment=5 data.image_size=16
data.image_size=100000 data.image_size=32.5 data.oversample=1000 data.batch_size=0 data.val_fraction=1
data.val_fraction=nan data.root=nowhere data.root=null data.defect_class=foo data.source=foo data.resample=cubic
data.split=foo data.split=grouped data.fold=9 data.seed=-1 +data.foo=1 data.augmentation=5
data.augmentation.rotation=nan data.augmentation.zoom=2 data.augmentation.shift=-1 data.augmentation.brightness=5
+data.augmentation.foo=1 +data.augmentation._target_=os.getcwd +data.slices.a=zzz threshold.escape_cost=nan
threshold.escape_cost=0 threshold.max_escape_rate=2 +threshold.foo=1 trainer.max_epochs=-1 trainer.max_epochs=0
trainer.max_epochs=many trainer.devices=99 trainer.devices=0 trainer.devices=[] trainer.accelerator=foo
trainer._target_=lightning.Callback +trainer.foo=1 +trainer.precision=foo +trainer.gradient_clip_val=nan
+trainer.strategy=foo +trainer.max_time=foo +trainer.limit_train_batches=-1 +trainer.val_check_interval=nan
callbacks.weight_averaging.decay=5 callbacks.checkpoint.mode=upward callbacks.report._target_=os.getcwd
+callbacks.foo=5 logger.tensorboard._target_=nowhere logger=foo paths.cache_dir=/dev/null ckpt_path=nowhere.ckpt
ckpt_path=/dev/null experiment=foo hydra.run.dir=/dev/null/x
"""


@row("overrides that train.py cannot follow")
def overrides(ground: Ground, tally: Tally) -> None:
    room = ground.room("overrides")
    (room / "X.png").write_bytes(bytes(range(256)))
    settings = OVERRIDES.split()
    chosen = random.Random(0).sample(settings, min(len(settings), ground.count(len(settings))))
    for index, override in enumerate(chosen):
        folder = room / f"run{index}"
        where = [] if "run.dir" in override else [f"hydra.run.dir={folder}"]
        tally.refused(
            override, ground.forks.run(*ground.training, *where, override, cwd=room, timeout=LONG), says="error: "
        )
        if (folder / "metrics.json").exists() or (folder / "checkpoints").exists():
            tally.add(f"{override}, after the refusal", let_through=1)


def _metrics(folder: Path) -> str | None:
    file = folder / "metrics.json"
    return file.read_text() if file.exists() else None


@row("`kill -9` during training, then resumed")
def killed_training(ground: Ground, tally: Tally) -> None:
    room, chance = ground.room("killed-training"), random.Random(0)
    settings = ("trainer.max_epochs=6", "model.dropout=0.3", "data.augment_val=true", "threshold.escape_cost=10")
    begin = time.monotonic()
    reference = ground.forks.run(*ground.training, *settings, f"hydra.run.dir={room}/whole", timeout=LONG)
    seconds, expected = time.monotonic() - begin, _metrics(room / "whole")
    if reference.code != 0:
        raise RuntimeError(reference.err)
    for index in range(ground.count(20)):
        folder = room / f"run{index}"
        command = (*ground.training, *settings, f"hydra.run.dir={folder}")
        process = ground.forks.start(*command)
        time.sleep(chance.uniform(0, 1) * seconds)
        os.kill(process, signal.SIGKILL)
        ground.forks.ended()
        what = f"killed run {index}"
        if _metrics(folder) not in (None, expected):
            tally.add(f"{what}: wrong figures", let_through=1)
            continue
        last = folder / "checkpoints" / "last.ckpt"
        # Without a checkpoint there is nothing to resume, and the used folder is refused.
        again = [f"ckpt_path={last}"] if last.exists() else [f"hydra.run.dir={folder}-anew"]
        ran = ground.forks.run(*command, *again, timeout=LONG)
        found = _metrics(folder if last.exists() else Path(f"{folder}-anew"))
        wrong = "" if ran.code == 0 else f"exit code {ran.code}, {ran.err[-300:]!r}"
        tally.add(what, lost=int(found != expected), traceback="Traceback" in ran.err, wrong=wrong)


@row("SIGTERM or SIGINT during training")
def stopped_training(ground: Ground, tally: Tally) -> None:
    room, chance = ground.room("stopped-training"), random.Random(1)
    for index in range(ground.count(10)):
        number, folder = (signal.SIGTERM, signal.SIGINT)[index % 2], room / f"run{index}"
        process = start(*ground.training, "trainer.max_epochs=100000", f"hydra.run.dir={folder}", preexec_fn=_heed)
        wait(partial(Path.exists, folder / "checkpoints" / "last.ckpt"), LONG)
        time.sleep(chance.uniform(0, 2))
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG)
        ran = Ran(process.returncode, out, err)
        tally.refused(f"{number.name} {index}", ran, says=f"stopped by {number.name}", codes=(128 + number,))
        best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
        if _metrics(folder) is not None or best["finished"]:
            tally.add(f"{number.name} {index}: looks finished", let_through=1)


def _heed() -> None:
    """Have a process obey Ctrl-C even where this script runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _any_ended(processes: "list[subprocess.Popen[str]]") -> bool:
    return any(process.poll() is not None for process in processes)


@row("two training runs that start at once in one folder")
def twins(ground: Ground, tally: Tally) -> None:
    room = ground.room("twins")
    for index in range(ground.count(5)):
        command = (*ground.training, f"hydra.run.dir={room}/run{index}", "trainer.max_epochs=100000")
        pair = [start(*command), start(*command)]
        wait(partial(_any_ended, pair), LONG)
        refused = next(process for process in pair if process.poll() is not None)
        _, err = refused.communicate()
        other = next(process for process in pair if process is not refused)
        time.sleep(1)
        both = other.poll() is not None
        other.kill()
        other.communicate()
        what = f"pair {index}{', both refused' * both}"
        tally.refused(what, Ran(refused.returncode, "", err), says="hydra.run.dir=")


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


def _evaluation(ground: Ground, ckpt_path: Path, root: Path, folder: Path, cache: Path) -> tuple[object, ...]:
    data = ("data=folder", f"data.root={root}", "data.defect_class=def_front", f"paths.cache_dir={cache}")
    options = ("trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", f"hydra.run.dir={folder}")
    return script("evaluate.py", f"ckpt_path={ckpt_path}", *data, *options)


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
    run(*_evaluation(ground, best, ground.castings, room / "whole", cache), timeout=LONG)
    expected = (room / "whole" / "predictions.csv").read_text()
    for name, damage in list(DAMAGE.items())[: ground.count(len(DAMAGE))]:
        damage(next(cache.glob("*.npy")))
        folder = room / name.replace(" ", "-")
        ran = ground.forks.run(*_evaluation(ground, best, ground.castings, folder, cache), timeout=LONG)
        predictions = folder / "predictions.csv"
        through = int(predictions.exists() and predictions.read_text() != expected)
        wrong = "" if ran.code == 0 and "is damaged" in ran.err else f"exit code {ran.code}, {ran.err[-300:]!r}"
        tally.add(name, let_through=through, traceback="Traceback" in ran.err, wrong=wrong)


class _Runs:
    """Pickles to a call that makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def _hostile(good: dict[str, Any], canary: Path) -> Iterator[tuple[str, Any]]:
    """Checkpoints that name code to run, hold no verdict or are none, with what the file holds."""

    def changed(part: str, **entries: Any) -> dict[str, Any]:
        return {**good, part: {**good[part], **entries}}

    touch = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(canary)]}}
    opened = {"_target_": "builtins.open", "file": str(canary), "mode": "w"}
    for name, code in (("touch", touch), ("open", opened)):
        yield f"optimizer: {name}", changed("hyper_parameters", optimizer=code)
        yield f"augmentation: {name}", changed("datamodule_hyper_parameters", augmentation=code)
    yield "instantiator", changed("hyper_parameters", _instantiator="pathlib.Path.touch")
    yield "data instantiator", changed("datamodule_hyper_parameters", _instantiator="os.mkdir", root=str(canary))
    yield "hparams_type", {**good, "hparams_type": "pathlib.Path.touch"}
    for name, value in (("threshold", float("nan")), ("temperature", -1.0), ("mean", float("inf")), ("lr", "fast")):
        yield f"{name}={value}", changed("hyper_parameters", **{name: value})
    weights = {name: torch.full_like(value, torch.nan) for name, value in good["state_dict"].items()}
    yield "weights that are NaN", {**good, "state_dict": weights}
    yield "no weights", {**good, "state_dict": {}}
    yield "no settings", {name: value for name, value in good.items() if "parameters" not in name}
    yield "a pickle that runs code", _Runs(canary)
    yield "a list", [1, 2, 3]


@row("hostile checkpoints, evaluated, resumed and exported")
def hostile_checkpoints(ground: Ground, tally: Tally) -> None:
    room, canary = ground.room("hostile"), ground.folder / "canary"
    last = ground.trained / "checkpoints" / "last.ckpt"
    good = {**torch.load(last, weights_only=True), "finished": True}
    files = {"an empty file": b"", "text": b"weights", "a bare pickle": pickle.dumps(_Runs(canary))}
    whole = last.read_bytes()
    files["half a file"] = whole[: len(whole) // 2]
    for name, content in files.items():
        (room / f"{name}.ckpt").write_bytes(content)
    for name, saved in _hostile(good, canary):
        torch.save(saved, room / f"{name.replace('=', ' is ')}.ckpt")
    checkpoints = sorted(room.glob("*.ckpt"))
    for index, file in enumerate(checkpoints[: ground.count(len(checkpoints))]):
        evaluation = _evaluation(ground, file, ground.castings, room / f"e{index}", room / "cache")
        quoted = [f"ckpt_path='{file}'" if str(part).startswith("ckpt_path=") else part for part in evaluation]
        harmless = file.stem in ("instantiator", "data instantiator", "hparams_type")  # what they name is not asked
        for command in (
            quoted,
            (*ground.training, f"hydra.run.dir={room}/r{index}", f"ckpt_path='{file}'"),
            castnet("export", file, "-o", room / f"{index}.onnx"),
        ):
            # Training and export do not read each other's part of the file, so they may end well.
            ran = ground.forks.run(*command, timeout=LONG)
            judged = harmless or (file.stem.startswith("augmentation") and command is not quoted)
            tally.refused(f"{file.stem}: {Path(str(command[1])).stem}", ran, codes=(0, 2) if judged else (2,))
            if canary.exists():
                canary.unlink() if canary.is_file() else canary.rmdir()
                tally.add(f"{file.stem}: ran code", let_through=1)


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        raise Skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@row("a full disk under training, drawing and evaluation")
def full_disk(ground: Ground, tally: Tally) -> None:
    room, best = ground.room("full-disk"), ground.trained / "checkpoints" / "best.ckpt"
    with _small_disk(room / "small", "300k") as small:
        places = {
            "pixel cache": (*ground.training, f"hydra.run.dir={room}/run", f"paths.cache_dir={small}/cache"),
            "run folder": (*ground.training, f"hydra.run.dir={small}/run"),
            "generated castings": castnet("generate", small / "castings", "--n", 200),
            "evaluation": _evaluation(ground, best, ground.castings, small / "evaluation", room / "cache"),
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
    makers: dict[str, Callable[[Path], None]] = {
        "pipe": lambda folder: os.mkfifo(folder / "pipe.jpeg"),
        "link to nothing": lambda folder: (folder / "link.jpeg").symlink_to("nothing.jpeg"),
        "folder named like an image": lambda folder: (folder / "folder.jpeg").mkdir(),
        "text named like an image": lambda folder: _write(folder / "text.jpeg", "no image"),
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


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _counts(run_folder: Path) -> Any:
    return json.loads((run_folder / "metrics.json").read_text())["data"]["counts"]
