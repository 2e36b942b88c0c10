"""One tiny generated data set, one trained checkpoint and one exported model serve all tests."""

import csv
import itertools
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest
import torch
from matplotlib.figure import Figure

import evaluate
import train
from castnet import cli, entry
from castnet.drawn.folder import generate
from castnet.export.export import export
from castnet.files import turn
from castnet.line.inspector import Inspector
from castnet.report import html

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
PATIENCE = 600  # seconds for all that is waited for: a machine may be slow, and time is what benchmarks measure
torch.set_num_threads(1)  # the tests' batches are too small to share among cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that they start, too
# For processes beside this one, which begin where the imports that take seconds are done.
BESIDE = get_context("forkserver")
BESIDE.set_forkserver_preload(["castnet.line.record", "castnet.study.page", "castnet.study.storage", "train"])

# What takes longest and mostly waits begins first, so that others work meanwhile and nobody waits for it at the end.
FIRST = ("test_clusters", "test_notebooks", "test_processes", "test_station", "test_page", "test_search", "test_train")

# Small enough that a run takes seconds.
SMALL = [
    "data.image_size=32",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "+trainer.enable_progress_bar=false",
    "trainer.enable_model_summary=false",
]
PLAIN = "~callbacks.pictures"  # what is drawn while a run trains takes a third of it
BLANK = html.png(Figure(figsize=(0.1, 0.1)))  # and what is drawn at its end takes another


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@dataclass
class Ran:
    """What a command left behind: exit code, what it printed, and its output folder."""

    code: int
    out: str
    err: str
    folder: Path


def made_once(paths: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all workers of a test run share: the first that needs it fills it, and the others wait."""
    own = paths.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    folder.mkdir(exist_ok=True)
    with turn(folder):
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated castings: 108 to train, 12 to test."""

    def make(folder: Path) -> None:
        generate(folder / "castings", n=120, seed=1, processes=1, progress=False)

    return made_once(tmp_path_factory, "data", make) / "castings"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Tests that need it skip where it is not."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)  # milliseconds
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=1000 * PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def real_castings() -> Path:
    """The real castings; tests that need them skip where they are not."""
    root = Path(os.environ.get("CASTNET_REAL_DATA", ROOT.parent / "shared" / "casting_data"))
    if not root.is_dir():
        pytest.skip(f"the real castings are not in {root} (CASTNET_REAL_DATA)")
    return root


def call(main: Callable[[], object], *overrides: str, capture: pytest.CaptureFixture[str], folder: Path) -> Ran:
    """Call train.py's or evaluate.py's main as from the command line."""
    arguments = sys.argv
    sys.argv = [f"{main.__module__}.py", *overrides, f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
    code = 0
    capture.readouterr()
    try:
        entry.guard(main)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = arguments
    printed = capture.readouterr()
    return Ran(code, printed.out, printed.err, folder)


Command = Callable[..., Ran]


@pytest.fixture
def run_train(
    castings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """train.py on the generated castings, with small settings; further overrides are its arguments.

    What it would draw is left blank, unless a test asks for pictures.
    """
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, folder: str = "run", pictures: bool = False) -> Ran:
        base = ["data=folder", f"data.root={castings}", "data.defect_class=def_front", *SMALL]
        with monkeypatch.context() as patch:
            if not pictures:
                base.append(PLAIN)
                patch.setattr(html, "png", lambda figure: BLANK)
            return call(train.main, *base, *overrides, capture=capfd, folder=tmp_path / folder)

    return run


def on_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment say what SLURM's says to a job of one task."""
    job = {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.fixture
def run_evaluate(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """evaluate.py; all overrides are its arguments."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, folder: str = "evaluation") -> Ran:
        base = ["trainer.accelerator=cpu", "+trainer.enable_progress_bar=false"]
        return call(evaluate.main, *base, *overrides, capture=capfd, folder=tmp_path / folder)

    return run


@pytest.fixture(scope="session")
def trained(castings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished training run."""

    def make(folder: Path) -> None:
        overrides = ["data=folder", f"data.root={castings}", "data.defect_class=def_front", *SMALL]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["train.py", *overrides, f"hydra.run.dir={folder}/run"])
            patch.chdir(folder)
            entry.guard(train.main)

    return made_once(tmp_path_factory, "trained", make) / "run"


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint as it is."""

    def make(folder: Path) -> None:
        export(trained, folder / "model.onnx")

    return made_once(tmp_path_factory, "exported", make) / "model.onnx"


@pytest.fixture(scope="session")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with a threshold that calls half of the castings defective, however little it has learnt."""

    def make(folder: Path) -> None:
        with (trained / "predictions.csv").open(newline="") as table:
            p_defect = [float(row["p_defect"]) for row in csv.DictReader(table)]
        checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
        checkpoint["hyper_parameters"]["threshold"] = median(p_defect)
        torch.save(checkpoint, folder / "halving.ckpt")
        export(folder / "halving.ckpt", folder / "halving.onnx")

    return made_once(tmp_path_factory, "halving", make) / "halving.onnx"


@pytest.fixture(scope="session")
def inspector(model: Path) -> Inspector:
    return Inspector(model)


@pytest.fixture
def test_images(castings: Path) -> list[Path]:
    return sorted((castings / "test").rglob("*.jpeg"))


def begin(main: Callable[[], object], *arguments: object, into: Path, **environment: object) -> ForkServerProcess:
    """Begin train.py's main, or one like it, in another process, which prints into a file and runs beside it."""
    process = BESIDE.Process(target=_call_beside, args=(main, arguments, into, environment))
    process.start()
    return process


def print_into(file: Path) -> None:
    """Have this process print at the end of a file from now on."""
    with file.open("a") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)


def _call_beside(
    main: Callable[[], object], arguments: tuple[object, ...], into: Path, environment: dict[str, object]
) -> None:
    os.chdir(into.parent)
    os.environ |= {name: str(value) for name, value in environment.items()}
    print_into(into)
    sys.argv = [f"{main.__module__}.py", *map(str, arguments)]
    entry.guard(main)


def start(
    *arguments: object, begin: Sequence[str] = ("-m", "castnet.cli"), **options: object
) -> "subprocess.Popen[str]":
    """Start the `castnet` command as from a shell, or by other words of Python's."""
    command = [sys.executable, *begin, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **{**pipes, **options})  # type: ignore[call-overload]


def castnet(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the `castnet` command as from a shell."""
    process = start(*arguments)
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def castnet_here(*arguments: object) -> int:
    """Run the `castnet` command in this process, which has imported what takes seconds, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["castnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def free_port() -> int:
    """A port for a process that takes it seconds later.

    It lies below those that Linux gives to whoever asks for any, as other tests do meanwhile.
    """
    while True:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_768)))
            return int(tried.getsockname()[1])


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


WAIT = ("--wait", f"--timeout={PATIENCE}")  # of pg_ctl, which else gives up after a minute


class PostgreSQL:
    """A server of the tests' own, reached by a socket in a folder of its own: no port can be taken by someone else.

    Args:
        folder: empty, with a short name, since names of sockets must be short.
        programs: folder of initdb and pg_ctl.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs, self._databases = folder, programs, itertools.count()
        # The server refuses to run as root.
        self._user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--no-sync", "--username=castnet", "--auth=trust", "--pgdata=data")

    def _run(self, program: str, *arguments: str) -> None:
        who = {"user": self._user.pw_uid, "group": self._user.pw_gid}
        command = [self._programs / program, *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, timeout=PATIENCE, **who)  # type: ignore[call-overload]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "--pgdata=data", f"--options={options}", "--log=log", *WAIT, "start")

    def kill(self) -> None:
        """End it at once, as a power cut would, and wait until it is gone."""
        self._run("pg_ctl", "--pgdata=data", "--mode=immediate", *WAIT, "stop")

    def new_database(self, encoding: str = "UTF8") -> str:
        """URL of an empty database."""
        name = f"castnet{next(self._databases)}"
        made = ("--template=template0", "--locale=C", f"--encoding={encoding}")
        self._run("createdb", f"--host={self._folder}", "--username=castnet", *made, name)
        return f"postgresql+psycopg://castnet@/{name}?host={self._folder}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running PostgreSQL; tests that need it skip where it is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        pytest.skip("PostgreSQL is not in /usr/lib/postgresql (apt-get install postgresql)")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = PostgreSQL(Path(folder), installed[-1].parent)
        server.start()
        yield server
        server.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
