import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from castnet.data import sources
from castnet.drawn.folder import PROPORTIONS
from castnet.errors import UserError


def test_runs_that_start_at_once_fetch_the_public_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, fetched = tmp_path / "data" / "casting", []

    def dataset_download(handle: str) -> str:
        fetched.append(handle)
        for split, name in PROPORTIONS:
            folder = tmp_path / "cache" / "casting_data" / split / name
            folder.mkdir(parents=True)
            (folder / "a.jpeg").write_bytes(b"an image")
        time.sleep(0.2)
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    monkeypatch.setattr(sources, "PROPORTIONS", dict.fromkeys(PROPORTIONS, 1))
    with ThreadPoolExecutor() as runs:
        list(runs.map(lambda _: sources.obtain("casting", root, None), range(3)))
    assert len(fetched) == 1
    assert len(list(root.rglob("*.jpeg"))) == len(PROPORTIONS)
    assert [path.name for path in root.parent.iterdir()] == ["casting"]


def test_what_lacks_an_image_is_not_taken_for_the_public_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, name in PROPORTIONS:
        (tmp_path / "cache" / split / name).mkdir(parents=True)
        (tmp_path / "cache" / split / name / "a.jpeg").touch()
    kaggle = SimpleNamespace(dataset_download=lambda handle: str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    with pytest.raises(UserError, match="Kaggle sent something else than the 7,348 images; to place it by hand"):
        sources.obtain("casting", tmp_path / "casting", None)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_public_set_that_cannot_be_fetched_is_one_line_that_says_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dataset_download(handle: str) -> str:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    with pytest.raises(UserError, match=r"Kaggle cannot be reached \(no route\); to place it by hand, download"):
        sources.obtain("casting", tmp_path / "casting", None)
    assert not (tmp_path / "casting").exists()
