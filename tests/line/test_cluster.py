"""Verdicts on a Ray cluster, of this machine alone."""

import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from castnet.files import digest_of
from castnet.line.cluster import _Judge, _OtherModel
from tests.conftest import PATIENCE, ROOT, start

MODEL = ROOT / "tests" / "written_before" / "0.1.0.onnx"


def test_an_archive_is_judged_on_ray_as_it_is_here(castings: Path, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"brok\xffn.png")).write_bytes(b"no image")
    printed = []
    for on in ([], ["--on", "ray"]):
        process = start("predict", MODEL, castings / "test", ".", "--json", *on, cwd=tmp_path)
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2, errors
        printed.append([json.loads(line) | {"latency_ms": 0} for line in out.splitlines()])
    assert printed[0] == printed[1]
    assert len(printed[0]) == 13


def test_judging_on_ray_stops_when_told_to(castings: Path, tmp_path: Path) -> None:
    # Links to the castings themselves would change their times, which name the pixel block of whoever trains on them.
    copies = shutil.copytree(castings / "test", tmp_path / "copies")
    (tmp_path / "many").mkdir()
    for index, file in enumerate(sorted(copies.rglob("*.jpeg")) * 400):
        (tmp_path / "many" / f"{index}.jpeg").hardlink_to(file)
    process = start("predict", MODEL, tmp_path / "many", "--on", "ray")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "SIGTERM" in errors) == (-signal.SIGTERM, False)


def test_a_node_that_has_another_model_judges_nothing(model: Path, castings: Path, tmp_path: Path) -> None:
    for there, message in ((model, "is another model there"), (tmp_path / "none.onnx", "no such file")):
        judge = _Judge(str(there), digest_of(MODEL))
        files = [os.fsencode(file) for file in (castings / "test").rglob("*.jpeg")]
        for result in map(pickle.loads, judge({"file": np.array(files)})["result"]):
            assert isinstance(result, _OtherModel)
            assert message in str(result)


def test_a_ray_address_where_nobody_answers_is_one_line(castings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    process = start("predict", MODEL, castings / "test", "--on", "ray")
    out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert errors.startswith("error: RAY_ADDRESS=127.0.0.1:1: no cluster answers")
    assert len(errors.splitlines()) == 1
