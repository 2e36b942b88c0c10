"""Rows of the fault table on the way from a folder to a checkpoint; `benchmarks/faults.py` runs them."""

import os
import pickle
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fault_table import LONG, Ground, Ran, Tally, castnet, heed, row, start, wait

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
        process = start(*ground.training, "trainer.max_epochs=100000", f"hydra.run.dir={folder}", preexec_fn=heed)
        wait(partial(Path.exists, folder / "checkpoints" / "last.ckpt"), LONG)
        time.sleep(chance.uniform(0, 2))
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG)
        ran = Ran(process.returncode, out, err)
        tally.refused(f"{number.name} {index}", ran, says=f"stopped by {number.name}", codes=(128 + number,))
        best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
        if _metrics(folder) is not None or best["finished"]:
            tally.add(f"{number.name} {index}: looks finished", let_through=1)


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
        evaluation = ground.evaluation(file, ground.castings, room / f"e{index}", room / "cache")
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
