"""The rooms keep to the house's plan, and what earlier versions wrote still serves."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from castnet.drawn.folder import draw
from castnet.export.export import export
from castnet.line import Inspector
from tests.conftest import ROOT, Command

BEFORE = Path(__file__).with_name("written_before")


def test_imports_between_rooms_run_downwards_and_in_no_circle() -> None:
    """The contracts stand in pyproject.toml under [tool.importlinter]."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("module", ["castnet.cli", "castnet.line", "castnet.line.predict", "castnet.line.watch"])
def test_a_verdict_imports_what_it_needs_and_no_more(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(name.split('.')[0] for name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    others = {"torch", "torchvision", "lightning", "torchmetrics", "hydra", "cv2", "scipy", "sklearn", "pandas", "rich"}
    assert not others & set(ran.stdout.split())


def test_a_command_whose_extra_is_missing_names_it(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from castnet.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", command, "audit", "folder"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        "error: cv2 is not installed here; `pip install 'castnet[audit]'` brings what this command needs\n"
    )


def test_what_a_script_imports_is_not_gone_through_for_garbage_and_what_it_makes_is() -> None:
    code = "import gc, train; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]


def test_a_checkpoint_and_a_model_of_version_0_1_judge_alike_and_as_before(
    run_evaluate: Command, castings: Path, tmp_path: Path
) -> None:
    """Both were written by one run of castnet 0.1.0, of two epochs at 22 pixels on castings it had drawn."""
    old = Inspector(BEFORE / "0.1.0.onnx")
    export(BEFORE / "0.1.0.ckpt", tmp_path / "new.onnx")
    new = Inspector(tmp_path / "new.onnx")
    for index in range(8):
        image = draw((0, index), defective=index % 2 == 0)[0]
        before, after = old.inspect(image), new.inspect(image)
        assert after.p_defect == pytest.approx(before.p_defect, abs=1e-5)
        assert after.threshold == before.threshold
    assert torch.load(BEFORE / "0.1.0.ckpt", weights_only=True)["hyper_parameters"]["threshold"] == old.threshold
    ran = run_evaluate(
        f"ckpt_path={BEFORE / '0.1.0.ckpt'}", "data=folder", f"data.root={castings}", "data.defect_class=def_front"
    )
    assert ran.code == 0, ran.err
