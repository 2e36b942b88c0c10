import json
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import decode
from castnet.imaging.overlay import overlay
from castnet.line.inspector import Inspector
from tests.conftest import PATIENCE, ROOT


def bomb(path: Path, side: int = 10_000) -> Path:
    """A PNG of a few bytes that claims 100 million pixels, or those of another side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def test_file_bytes_and_pixels_get_the_same_verdict(inspector: Inspector, test_images: list[Path]) -> None:
    file = test_images[0]
    expected = inspector.inspect(file)
    assert expected.class_name in ("def_front", "ok_front")
    assert expected.is_defect == (expected.class_name == "def_front") == (expected.p_defect >= expected.threshold)
    assert expected.latency_ms > 0
    rgb = np.asarray(Image.open(file).convert("RGB"))
    for source in (str(file), file.read_bytes(), bytearray(file.read_bytes()), decode(file), rgb):
        verdict = inspector.inspect(source)
        assert (verdict.class_name, verdict.p_defect) == (expected.class_name, expected.p_defect)


def test_many_are_judged_in_order_and_bad_ones_between_them_named(
    inspector: Inspector, test_images: list[Path], tmp_path: Path
) -> None:
    torn, text = tmp_path / "torn.jpeg", tmp_path / "text.png"
    torn.write_bytes(test_images[0].read_bytes()[:2000])
    text.write_text("no image")
    bad = [torn, text, bomb(tmp_path / "bomb.png"), bomb(tmp_path / "larger.png", 60_000), tmp_path / "missing.png"]
    sources = [*test_images, *bad] * 10  # more than are under way at once
    results = list(inspector.inspect_many(sources))
    assert len(results) == len(sources)
    for source, result in zip(sources, results, strict=True):
        if source in bad:
            assert isinstance(result, UserError)
            assert str(source) in str(result)
        else:
            assert not isinstance(result, UserError)
            assert result.p_defect == inspector.inspect(source).p_defect
    assert "10000 × 10000 pixels; at most 64,000,000" in str(results[len(test_images) + 2])
    assert "too many pixels; at most 64,000,000" in str(results[len(test_images) + 3])


def test_one_inspector_serves_many_threads(inspector: Inspector, test_images: list[Path]) -> None:
    expected = [inspector.inspect(file).p_defect for file in test_images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: inspector.inspect(file).p_defect, test_images * 8))
    assert found == expected * 8


def test_an_array_that_is_no_image_is_refused(inspector: Inspector) -> None:
    for array in (
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ):
        with pytest.raises(UserError, match=r"expected uint8 \(height, width\)"):
            inspector.inspect(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [("unsure", "good"), ("defective", "unsure"), ("good", "defective")])
def test_a_verdict_is_what_it_is_whatever_the_classes_are_called(
    model: Path, inspector: Inspector, castings: Path, tmp_path: Path, classes: tuple[str, str]
) -> None:
    proto = onnx.load(model)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == "castnet")
    entry.value = json.dumps(json.loads(entry.value) | {"class_names": classes, "defect_class": classes[0]})
    onnx.save(proto, tmp_path / "named.onnx")
    files = sorted((castings / "test").rglob("*.jpeg"))
    before, named = (list(each.inspect_many(files)) for each in (inspector, Inspector(tmp_path / "named.onnx")))
    assert [(v.verdict, v.reason) for v in named] == [(v.verdict, v.reason) for v in before]
    assert {(v.verdict, v.class_name) for v in named} >= {("defective", classes[0]), ("good", classes[1])}


def test_the_heat_map_has_the_images_size_and_tints_only_where_the_evidence_is() -> None:
    grey = np.full((300, 200), 100, np.uint8)
    evidence = np.full((6, 6), -1.0, np.float32)
    evidence[1, 4] = 2.0
    painted = overlay(grey, evidence, (11 / 64, 8 / 64))
    assert painted.shape == (300, 200, 3)
    redness = painted[:, :, 0].astype(int) - painted[:, :, 1]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert (row / 300, column / 200) == (pytest.approx(19 / 64, abs=0.01), pytest.approx(43 / 64, abs=0.01))
    assert np.array_equal(painted[200:, :100], np.full((100, 100, 3), 100))


def test_weak_evidence_stays_pale_in_the_heat_map() -> None:
    """Else a good casting would be painted red somewhere, for lack of anything better."""
    grey, strongest = np.full((64, 64), 100, np.uint8), {}
    for logits in (-1.0, 0.1, 1.0, 5.0):
        painted = overlay(grey, np.full((6, 6), logits, np.float32), (11 / 64, 8 / 64)).astype(int)
        strongest[logits] = (painted[:, :, 0] - painted[:, :, 1]).max()
    assert strongest[-1.0] == 0
    assert 0 < strongest[0.1] < 0.15 * strongest[1.0]
    assert strongest[1.0] == strongest[5.0] > 100


def test_the_casting_is_seen_through_the_strongest_tint() -> None:
    grey = np.tile(np.array([60, 180], np.uint8), (64, 32))
    painted = overlay(grey, np.full((6, 6), 5.0, np.float32), (11 / 64, 8 / 64)).astype(int)
    assert np.abs(painted[:, 1::2] - painted[:, ::2]).min() >= 25


def test_the_heat_map_of_a_casting_is_its_picture_where_nothing_speaks_for_a_defect(
    inspector: Inspector, test_images: list[Path]
) -> None:
    grey, painted = decode(test_images[0]), inspector.heatmap(test_images[0])
    untouched = (painted == grey[:, :, None]).all(axis=2)
    assert painted.shape == (*grey.shape, 3)
    assert untouched.any() or (painted[:, :, 0] >= painted[:, :, 1]).all()


def test_no_training_library_is_loaded(model: Path, test_images: list[Path]) -> None:
    program = f"""
import sys
from castnet.line.inspector import Inspector
inspector = Inspector({str(model)!r})
inspector.inspect({str(test_images[0])!r}), inspector.heatmap({str(test_images[0])!r})
print([name for name in ("torch", "torchvision", "lightning", "matplotlib", "scipy", "onnx") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"text", "not a model that `castnet export`")]
)
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "model.onnx"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        Inspector(path)


def test_what_is_no_casting_is_unfamiliar_however_sure_the_network_is(inspector: Inspector, castings: Path) -> None:
    files = sorted(castings.rglob("*.jpeg"))
    castings_found = [inspector.inspect(file) for file in files]
    assert {verdict.verdict for verdict in castings_found} >= {"good", "defective"}
    assert sum(verdict.verdict == "unsure" for verdict in castings_found) <= 0.02 * len(files)
    casting = decode(files[0])
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    for pixels in (np.zeros_like(casting), np.full_like(casting, 255), noise, casting // 10):
        verdict = inspector.inspect(pixels)
        assert (verdict.verdict, verdict.reason, verdict.class_name) == ("unsure", "unfamiliar", "unsure")
        assert verdict.is_defect, "who knows two verdicts must not take it for good"
        assert verdict.unfamiliarity >= 1


def test_nothing_is_kept_to_be_reported_to_others(model: Path, test_images: list[Path], tmp_path: Path) -> None:
    """ONNX Runtime would queue what it was used for in the user's home, and send it when it can."""
    judge = (
        f"from castnet.line import Inspector; print(Inspector({str(model)!r}).inspect({str(test_images[0])!r}).verdict)"
    )
    told = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment = {**told, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", judge], env=environment, check=True, timeout=PATIENCE)
    assert not list(tmp_path.iterdir())
