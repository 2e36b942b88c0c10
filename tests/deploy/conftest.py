"""The trained checkpoint, exported once for all."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch

from castnet.deploy.export import export
from castnet.deploy.inspector import Inspector

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint as it is."""
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(trained, out)
    return out


@pytest.fixture(scope="session")
def model(trained: Path, exported: Path, castings: Path) -> Path:
    """The same network with a threshold that calls half of the castings defective, however little it has learnt."""
    files = (castings / "test").rglob("*.jpeg")
    p_defect = [verdict.p_defect for verdict in map(Inspector(exported).inspect, files)]
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["threshold"] = median(p_defect)
    halving = exported.with_name("halving.ckpt")
    torch.save(checkpoint, halving)
    export(halving, exported.with_name("halving.onnx"))
    return exported.with_name("halving.onnx")


@pytest.fixture(scope="session")
def inspector(model: Path) -> Inspector:
    return Inspector(model)


@pytest.fixture
def test_images(castings: Path) -> list[Path]:
    return sorted((castings / "test").rglob("*.jpeg"))


def start(*arguments: object, **options: object) -> "subprocess.Popen[str]":
    """Start the `castnet` command as from a shell."""
    command = [sys.executable, "-m", "castnet.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **{**pipes, **options})  # type: ignore[call-overload]


def castnet(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the `castnet` command as from a shell."""
    process = start(*arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
