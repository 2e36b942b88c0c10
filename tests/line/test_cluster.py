"""Verdicts on a Ray cluster, of this machine alone."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, start

MODEL = ROOT / "tests" / "written_before" / "0.1.0.onnx"


def test_an_archive_is_judged_on_ray_as_it_is_here(castings: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    printed = []
    for on in ([], ["--on", "ray"]):
        process = start("predict", MODEL, castings / "test", tmp_path, "--json", *on)
        out, errors = process.communicate()
        assert process.returncode == 2, errors
        printed.append([json.loads(line) | {"latency_ms": 0} for line in out.splitlines()])
    assert printed[0] == printed[1]
    assert len(printed[0]) == 13


def test_a_ray_address_where_nobody_answers_is_one_line(castings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    process = start("predict", MODEL, castings / "test", "--on", "ray")
    out, errors = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert errors.startswith("error: RAY_ADDRESS=127.0.0.1:1: no cluster answers")
    assert len(errors.splitlines()) == 1
