import csv
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from castnet.line.inspector import Inspector
from tests.conftest import PATIENCE, castnet, free_port, start
from tests.line.test_inspector import bomb


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """The address of a page that is being served."""
    process = start("app", *arguments, "--port", free_port(), stderr=subprocess.DEVNULL)
    assert process.stdout
    try:
        found = None
        while not found and (line := process.stdout.readline()):
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, "it does not serve"
        yield found[0]
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with served(model) as address:
        yield address


def open_page(browser: Browser, address: str, **options: Any) -> Page:
    """The page when it is drawn to its end: before, a click may be lost."""
    page = browser.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE)  # milliseconds
    page.goto(address)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    return page


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = open_page(browser, address)
    expect(page.get_by_text("No image at hand?")).to_be_visible()
    yield page
    page.close()


def upload(page: Page, *files: Path) -> None:
    page.locator("input[type=file]").set_input_files([str(file) for file in files])


def test_an_uploaded_casting_gets_the_inspectors_verdict_and_a_heat_map(
    page: Page, inspector: Inspector, test_images: list[Path]
) -> None:
    verdict = inspector.inspect(test_images[0])
    upload(page, test_images[0])
    expect(page.get_by_test_id("verdict")).to_have_text(verdict.verdict.capitalize())
    meter = page.get_by_role("meter")
    assert float(meter.get_attribute("aria-valuenow") or "nan") == pytest.approx(verdict.p_defect, abs=1e-4)
    expect(meter).to_contain_text(f"threshold {verdict.threshold:.3g}")
    expect(page.get_by_alt_text("heat map of the evidence for a defect")).to_be_visible()


def test_a_drawn_casting_is_judged_at_a_click_and_the_card_names_the_data(page: Page, castings: Path) -> None:
    page.get_by_role("button", name="good", exact=True).first.click()
    expect(page.get_by_test_id("verdict")).to_be_visible()
    expect(page.get_by_text("The user's own images.")).to_be_visible()
    expect(page.get_by_text(f"Trained on images of {castings.name} (data=folder).")).to_be_visible()


def test_a_page_without_a_record_says_how_to_have_one(page: Page, address: str) -> None:
    for tab in ("today", "review"):
        page.goto(f"{address}/{tab}")
        expect(page.get_by_text("Nothing is recorded")).to_be_visible()
    page.goto(f"{address}/models")
    expect(page.get_by_text("The user's own images.")).to_be_visible()


def test_bad_files_get_a_line_each_and_the_others_a_verdict(
    page: Page, inspector: Inspector, test_images: list[Path], tmp_path: Path
) -> None:
    torn, text = tmp_path / "torn.jpeg", tmp_path / "text.jpeg"
    torn.write_bytes(test_images[0].read_bytes()[:2000])
    text.write_text("no image")
    upload(page, *test_images, torn, text, bomb(tmp_path / "bomb.png"))
    for line in ("torn.jpeg: cannot be read", "text.jpeg: cannot be read", "bomb.png: has 10000 × 10000 pixels"):
        expect(page.get_by_text(line)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download verdicts (CSV)").click()
    rows = list(csv.DictReader(download.value.path().open()))
    assert [row["file"] for row in rows] == [*(file.name for file in test_images), torn.name, text.name, "bomb.png"]
    for file, row in zip(test_images, rows, strict=False):
        verdict = inspector.inspect(file)
        assert float(row["p_defect"]) == pytest.approx(verdict.p_defect, abs=1e-4)
        assert row["verdict"] == verdict.verdict
    assert [row["verdict"] for row in rows[-3:]] == ["not read"] * 3


def test_a_page_stops_when_told_to_also_if_nobody_reads_its_output_any_more(model: Path) -> None:
    port = free_port()
    process = start("app", model, "--port", port, stderr=subprocess.DEVNULL)
    assert process.stdout
    while (line := process.stdout.readline()) and "http://" not in line:
        pass
    # It prints its address before it heeds signals, and answers after.
    assert httpx.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=PATIENCE).is_success
    process.stdout.close()
    process.terminate()
    assert process.wait(timeout=PATIENCE) == 0


def test_without_a_run_one_line_says_to_train_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = castnet("app")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: runs/: no training run there; `make train` first, or name a model: castnet app MODEL\n"


def test_without_a_model_the_last_run_is_shown(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("older", "last")):
        checkpoint = tmp_path / "runs" / "train" / name / "checkpoints" / "best.ckpt"
        checkpoint.parent.mkdir(parents=True)
        shutil.copy(trained / "checkpoints" / "best.ckpt", checkpoint)
        os.utime(checkpoint, (1e9 + number, 1e9 + number))
    port = free_port()
    process = start("app", "--port", port, stderr=subprocess.DEVNULL)
    assert process.stdout
    said = ""
    while "http://" not in said and (line := process.stdout.readline()):
        said += line
    assert "exporting runs/train/last/checkpoints/best.ckpt" in said
    assert httpx.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=PATIENCE).text == "ok"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE)
    assert len(list((tmp_path / ".cache" / "models").glob("*.onnx"))) == 1
