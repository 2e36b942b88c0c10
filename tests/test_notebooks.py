"""The notebooks run from start to end on tiny generated data."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PATIENCE, ROOT

TINY = "data.image_size=32 trainer.max_epochs=1 trainer.accelerator=cpu"


def test_they_run_one_after_the_other_as_a_reader_would(
    castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conf", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "train.py", tmp_path)
    data = f"data=folder data.root={castings} data.defect_class=def_front"
    pictures = 0
    for name, overrides in (("1_data", TINY), ("2_training", TINY), ("3_evaluation", "")):
        monkeypatch.setenv("CASTNET_OVERRIDES", f"{data} {overrides}")
        notebook = nbformat.read(tmp_path / "notebooks" / f"{name}.ipynb", as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        notebook.cells.insert(0, first)  # as after a change of the overrides
        waits = {"timeout": PATIENCE, "startup_timeout": PATIENCE}
        NotebookClient(notebook, **waits, resources={"metadata": {"path": tmp_path / "notebooks"}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        pictures += sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures == 7


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_they_are_stored_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not [output for cell in cells for output in cell.get("outputs", [])]
    assert all(len(cell.source.splitlines()) <= 20 for cell in cells)
