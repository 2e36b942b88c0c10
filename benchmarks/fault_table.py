"""What the rows of `benchmarks/faults.py` share: the ground they stand on, how they run a command, how they count."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("data.image_size=32", "trainer.max_epochs=2", "trainer.accelerator=cpu", "+trainer.enable_progress_bar=false")
TIMEOUT = 600.0  # seconds after which a command counts as hanging
LONG = 900.0  # seconds after which a training run counts as hanging
VERDICTS = (0, 1, 3)  # exit codes that say what was judged: good, defective, unsure


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code (negative: the signal that ended it; None: it hung) and what it printed."""

    code: int | None
    out: str
    err: str


def run(*command: object, timeout: float = TIMEOUT, **options: object) -> Ran:
    """Run a command in a process of its own; `options` are those of `subprocess.Popen`."""
    process = start(*command, **options)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Ran(None, out, err)
    return Ran(process.returncode, out, err)


def start(*command: object, **options: object) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(list(map(str, command)), **{"env": environment, **pipes, **options})  # type: ignore[call-overload]


def heed() -> None:
    """Have a process obey Ctrl-C even where this script runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Forks:
    """Runs commands in forks of one process that has imported what they need; see `fault_fork.py`."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "forked-out", folder / "forked-err"
        self._server = start(
            sys.executable, Path(__file__).with_name("fault_fork.py"), stdin=subprocess.PIPE, stderr=None
        )

    def start(self, *command: object, cwd: Path | None = None) -> int:
        """Start what `castnet` or `script` made, and return the number of its process; `ended` must follow."""
        words = [str(word) for word in command]
        program, arguments = ("castnet", words[3:]) if words[1] == "-m" else (Path(words[1]).name, words[2:])
        for file in self._said:
            file.write_text("")
        self._tell(json.dumps([program, arguments, str(cwd or Path.cwd()), *map(str, self._said)]))
        return self._answer()

    def ended(self) -> Ran:
        """What the process left that was started last, when it has ended; until then its number is its own."""
        self._tell("")
        return Ran(self._answer(), *(file.read_text(errors="replace") for file in self._said))

    def _tell(self, line: str) -> None:
        assert self._server.stdin
        print(line, file=self._server.stdin, flush=True)

    def _answer(self) -> int:
        assert self._server.stdout
        return int(self._server.stdout.readline())

    def run(self, *command: object, cwd: Path | None = None, timeout: float = TIMEOUT) -> Ran:
        """As `run`, for what `castnet` or `script` made."""
        timer = threading.Timer(timeout, os.kill, (self.start(*command, cwd=cwd), signal.SIGKILL))
        timer.start()
        ran = self.ended()
        hung = not timer.is_alive()
        timer.cancel()
        return replace(ran, code=None) if hung else ran


def castnet(*arguments: object) -> tuple[object, ...]:
    """The `castnet` command, for `run` and `start`."""
    return (sys.executable, "-m", "castnet.cli", *arguments)


def script(name: str, *arguments: object) -> tuple[object, ...]:
    """train.py or evaluate.py, for `run` and `start`."""
    return (sys.executable, ROOT / name, *arguments)


@dataclass
class Tally:
    """The counts of one row.

    Attributes:
        tries: faults made.
        survived: those after which all was as it should be.
        lost: work or input that was there before and is gone, or was passed over in silence.
        let_through: faults that ended as if nothing were wrong: a verdict, a report or an exit code 0 or 1.
        tracebacks: faults that a user was shown a traceback for.
        wrongs: what was not as it should be, in words.
    """

    tries: int = 0
    survived: int = 0
    lost: int = 0
    let_through: int = 0
    tracebacks: int = 0
    wrongs: list[str] = field(default_factory=list)

    def add(self, what: str, *, lost: int = 0, let_through: int = 0, traceback: bool = False, wrong: str = "") -> None:
        """Count one try.

        Args:
            what: the fault that was made.
            lost, let_through, traceback: see the attributes.
            wrong: anything else that was not as it should be, such as a hang; empty where all was.
        """
        self.tries += 1
        self.lost += lost
        self.let_through += let_through
        self.tracebacks += traceback
        if lost or let_through or traceback or wrong:
            reasons = {"lost": lost, "let through": let_through, "traceback": traceback, wrong: wrong}
            self.wrongs.append(f"{what}: {', '.join(reason for reason, holds in reasons.items() if holds)}")
        else:
            self.survived += 1

    def refused(self, what: str, ran: Ran, says: str = "", codes: Collection[int] = (2,), lost: int = 0) -> None:
        """Count a command that must end with one of `codes` and, on standard error, with one line that holds `says`."""
        lines = ran.err.strip().splitlines()
        wrong = ""
        if ran.code not in codes:
            wrong = f"exit code {ran.code}, {ran.err.strip()[-300:]!r}"
        elif says not in (lines[-1] if lines else ""):
            wrong = f"says {ran.err.strip()[-300:]!r} instead of {says!r}"
        let_through = int(ran.code in VERDICTS and ran.code not in codes)
        self.add(what, lost=lost, let_through=let_through, traceback="Traceback" in ran.err, wrong=wrong)


@dataclass
class Ground:
    """What the faults are made on, drawn and trained when it is first asked for.

    Attributes:
        folder: where a row may make what it needs, in a folder of its own.
        scale: share of the full number of tries.
    """

    folder: Path
    scale: float

    def count(self, full: int) -> int:
        """How many tries to make where `full` are made at full scale."""
        return max(1, round(full * self.scale))

    def room(self, name: str) -> Path:
        """A new folder."""
        room = self.folder / name
        room.mkdir()
        return room

    @cached_property
    def forks(self) -> Forks:
        """Where commands run that are to be refused, so that most of the time is not spent on imports."""
        return Forks(self.folder)

    @cached_property
    def castings(self) -> Path:
        """108 generated castings to train, 12 to test."""
        _done(run(*castnet("generate", self.folder / "castings", "--n", 120, "--seed", 1)))
        return self.folder / "castings"

    @cached_property
    def training(self) -> tuple[object, ...]:
        """The command of a small training run, without its folder."""
        data = ("data=folder", f"data.root={self.castings}", "data.defect_class=def_front")
        return script("train.py", *data, *SMALL, "~callbacks.progress_bar", f"paths.cache_dir={self.folder}/cache")

    @cached_property
    def trained(self) -> Path:
        """The folder of a finished training run."""
        _done(run(*self.training, f"hydra.run.dir={self.folder}/run", timeout=600))
        return self.folder / "run"

    @cached_property
    def model(self) -> Path:
        """The file that `castnet export` makes of it."""
        _done(run(*castnet("export", self.trained, "-o", self.folder / "model.onnx"), timeout=600))
        return self.folder / "model.onnx"

    def evaluation(self, ckpt_path: Path, root: Path, folder: Path, cache: Path) -> tuple[object, ...]:
        """The command that evaluates a checkpoint on the castings in `root`."""
        data = ("data=folder", f"data.root={root}", "data.defect_class=def_front", f"paths.cache_dir={cache}")
        options = ("trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", f"hydra.run.dir={folder}")
        return script("evaluate.py", f"ckpt_path={ckpt_path}", *data, *options)

    @contextmanager
    def small_disk(self, name: str, size: str) -> Iterator[Path]:
        """A new folder that is a file system of that size.

        Raises:
            Skip: this machine does not permit one.
        """
        disk = self.room(name)
        mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk)
        if subprocess.run(mount, capture_output=True).returncode:
            raise Skip("mounting a small file system is not permitted here")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


def _done(ran: Ran) -> None:
    if ran.code != 0:
        raise RuntimeError(f"the ground could not be made: {ran.err}")


def wait(holds: Callable[[], bool], seconds: float = TIMEOUT) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not come to hold.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


Row = Callable[[Ground, Tally], None]
ROWS: dict[str, Row] = {}


class Skip(Exception):
    """A row that this machine does not permit, with the reason."""


def row(name: str) -> Callable[[Row], Row]:
    """Register a function as the row of this name; it raises `Skip` where the machine does not permit its fault."""

    def register(function: Row) -> Row:
        assert name not in ROWS
        ROWS[name] = function
        return function

    return register
