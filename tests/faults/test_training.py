"""What a signal, a kill or a full disk may do to training."""

import csv
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from castnet import entry
from castnet.files import hold
from castnet.signals import Stopped, obeying_signals, told_later
from tests.conftest import PATIENCE, ROOT, SMALL, Command, until


def start_train(castings: Path, run: Path, *overrides: str, **options: object) -> "subprocess.Popen[str]":
    """Start train.py as from a shell, for so many epochs that it does not end by itself."""
    base = ["data=folder", f"data.root={castings}", "data.defect_class=def_front", *SMALL, f"hydra.run.dir={run}"]
    command = [sys.executable, str(ROOT / "train.py"), *base, f"paths.cache_dir={run.parent / 'cache'}", *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": run.parent}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **{**pipes, **options})  # type: ignore[call-overload]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_as_schedulers_expect_and_does_not_look_finished(
    castings: Path, trained: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start_train(castings, tmp_path / "run", "trainer.max_epochs=100000", preexec_fn=_heed_interrupts)
    best = tmp_path / "run/checkpoints/best.ckpt"
    until((tmp_path / "run/checkpoints/last.ckpt").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert f"error: stopped by {number.name}" in errors.splitlines()
    assert "Traceback" not in errors
    assert not (tmp_path / "run/metrics.json").exists()
    assert torch.load(best, weights_only=True)["finished"] is False
    assert torch.load(trained / "checkpoints/best.ckpt", weights_only=True)["finished"] is True


def test_a_signal_that_comes_while_something_is_finalized_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Finalized()
        time.sleep(600)

    with pytest.raises(SystemExit) as ended:
        entry.guard(work)
    assert ended.value.code == 143
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"


def test_a_signal_that_a_library_takes_for_something_else_is_not_lost() -> None:
    def work() -> None:
        with suppress(BaseException):  # as a compiled module does that looks whether it can import another
            signal.raise_signal(signal.SIGTERM)
        time.sleep(600)

    with pytest.raises(SystemExit) as ended:
        entry.guard(work)
    assert ended.value.code == 143


def test_a_signal_that_a_library_makes_another_exit_of_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise SystemExit(1) from None  # as Ray does

    with pytest.raises(SystemExit) as ended:
        entry.guard(work)
    assert (ended.value.code, capsys.readouterr().err) == (143, "error: stopped by SIGTERM\n")


def test_no_signal_leaves_a_lock_taken() -> None:
    code = "import os, sys, time\nwhile True: time.sleep(0.001); os.kill(int(sys.argv[1]), 15)"
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    with subprocess.Popen([sys.executable, "-c", code, str(os.getpid())]) as others:
        try:
            for _ in range(100):
                shared = threading.Condition(threading.Lock())
                with suppress(Stopped), obeying_signals():
                    while True:
                        with shared:
                            pass
                assert shared.acquire(blocking=False)
        finally:
            others.kill()
    signal.signal(signal.SIGTERM, before)


def test_no_signal_has_a_thread_woken_that_another_was_woken_for() -> None:
    """As it ends TensorBoard's writer waits to be woken: it slept on for two minutes."""
    shared = threading.Condition(threading.Lock())
    woken = SimpleNamespace(release=partial(signal.raise_signal, signal.SIGTERM))  # a signal comes while it is woken
    with suppress(Stopped), obeying_signals(), shared:
        shared._waiters.append(woken)  # type: ignore[attr-defined]
        shared.notify()
        time.sleep(600)
    assert woken not in shared._waiters  # type: ignore[attr-defined]


def test_what_must_not_be_left_half_done_is_done_before_a_signal_is_heard() -> None:
    done = []

    def work() -> None:
        with told_later():
            signal.raise_signal(signal.SIGTERM)
            done.append("within")
        done.append("after")

    with pytest.raises(Stopped), obeying_signals():
        work()
    assert done == ["within"]


def test_a_signal_that_was_heard_does_not_come_again() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    with suppress(Stopped), obeying_signals():
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.3)
    signal.signal(signal.SIGTERM, before)
    assert came == []


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_run_under_nohup_goes_on_when_interrupted(castings: Path, tmp_path: Path) -> None:
    process = start_train(castings, tmp_path / "run", preexec_fn=_ignore_interrupts)
    until((tmp_path / "run").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (tmp_path / "run/metrics.json").exists()


def test_two_runs_never_share_a_folder(run_train: Command, tmp_path: Path) -> None:
    with hold(tmp_path / "run"):
        ran = run_train()
    assert ran.code == 2
    assert f"hydra.run.dir={tmp_path / 'run'}: another run is at work there" in ran.err


@pytest.mark.parametrize("odd", ["pipe", "link to nothing"])
def test_what_cannot_be_read_in_the_data_folder_is_named_and_not_waited_for(
    run_train: Command, castings: Path, tmp_path: Path, odd: str
) -> None:
    shutil.copytree(castings, tmp_path / "odd")
    image = tmp_path / "odd" / "train" / "ok_front" / "odd.jpeg"
    if odd == "pipe":
        os.mkfifo(image)
    else:
        image.symlink_to("nothing.jpeg")
    ran = run_train(f"data.root={tmp_path / 'odd'}")
    assert ran.code == 2
    assert f"error: {image}: cannot be read" in ran.err


def test_a_subset_of_one_class_is_refused_before_training(run_train: Command, castings: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(castings).as_posix() for path in castings.rglob("*.jpeg"))
    subset = {"train/def_front": "test", "test/def_front": "val", "test/ok_front": "val"}
    with (tmp_path / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split"])
        for index, name in enumerate(files):
            kept = "train" if index % 2 else subset.get(str(Path(name).parent), "train")
            writer.writerow([name, kept])
    ran = run_train(f"data.assignment={tmp_path / 'split.csv'}")
    assert ran.code == 2
    assert "the test images are all def_front; rates need both classes" in ran.err
    assert not (ran.folder / "checkpoints").exists()


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_one_before(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(file: Path, content: bytes, write_bytes: Callable[[Path, bytes], int] = Path.write_bytes) -> int:
        if file.name.startswith("last.ckpt"):
            if written:
                write_bytes(file, content[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(content)
        return write_bytes(file, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write)
        ran = run_train("trainer.max_epochs=3")
    last = ran.folder / "checkpoints" / "last.ckpt"
    assert (ran.code, ran.err.splitlines()[-1]) == (2, f"error: [Errno 28] No space left on device: '{last}'")
    assert last.read_bytes() == written[0]
    assert {path.name for path in last.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    ran = run_train("trainer.max_epochs=3", f"ckpt_path={last}")
    assert ran.code == 0, ran.err


def test_names_that_mean_something_elsewhere_are_names_and_no_more(
    run_train: Command, castings: Path, tmp_path: Path
) -> None:
    defective, good = r"[red]$\frac$", "ok–[b]{x}"
    for part in ("train", "test"):
        shutil.copytree(castings / part / "def_front", tmp_path / "odd" / part / defective)
        shutil.copytree(castings / part / "ok_front", tmp_path / "odd" / part / good)
        for name in (b"two\nlines.jpeg", b"\xff.jpeg", b'=1+1,".jpeg'):
            image = next((tmp_path / "odd" / part / good).glob("casting*"))
            os.rename(image, os.fsencode(image.parent) + b"/" + name)
    odd = [f"data.root={tmp_path / 'odd'}", f"data.defect_class='{defective}'"]
    ran = run_train(*odd, "trainer.max_epochs=1", pictures=True)
    assert ran.code == 0, ran.err
    assert defective in ran.out
    shown = EventAccumulator(str(ran.folder))
    shown.Reload()
    (written,) = shown.Tensors("custom_scalars__config__")[0].tensor_proto.string_val
    charts = [chart for category in layout_pb2.Layout.FromString(written).category for chart in category.chart]
    for tag in (tag for chart in charts for tag in chart.multiline.tag):  # as TensorBoard's page finds them
        assert [name for name in shown.Tags()["scalars"] if re.match(tag, name)], tag
    with (ran.folder / "predictions.csv").open(newline="", errors="surrogateescape") as table:
        names = {os.fsencode(row["file"]) for row in csv.DictReader(table)}
    assert len(names) == 12
    assert {b"two\nlines.jpeg", b"\xff.jpeg", b'=1+1,".jpeg'} <= {name.rpartition(b"/")[2] for name in names}


def test_a_class_whose_name_cannot_be_printed_is_one_line(run_train: Command, castings: Path, tmp_path: Path) -> None:
    shutil.copytree(castings, tmp_path / "odd")
    for part in ("train", "test"):
        (tmp_path / "odd" / part / "ok_front").rename(tmp_path / "odd" / part / "ok\x1b[31m")
    ran = run_train(f"data.root={tmp_path / 'odd'}")
    assert ran.code == 2
    assert r"ok\x1b[31m: a class has a name of printable characters" in ran.err


def test_what_is_no_text_is_no_setting(run_train: Command) -> None:
    ran = run_train("data.root=/\udcff")
    assert ran.code == 2
    assert r"error: data.root=/\udcff: holds bytes that are no text" in ran.err


def test_a_terminal_that_lacks_a_character_is_shown_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    entry.guard(print, "5 × 5")
    assert shown.getvalue() == b"5 \\xd7 5\n"


def test_ctrl_c_during_imports_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from castnet.errors import extra\nimport time\nwith extra('train'):\n    print('importing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (-signal.SIGINT, "")
