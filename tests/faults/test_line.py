"""What a file, a folder, a model or a stream may do to the line; `benchmarks/faults.py` does it many more times."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from castnet.audit.spectra import Spectra
from castnet.errors import UserError, printable
from castnet.export import export as exporting
from castnet.export import last_run
from castnet.imaging.decode import MAX_BYTES, MAX_SIDE, decode
from castnet.imaging.listing import list_images
from castnet.line.inspector import Inspector
from tests.conftest import PATIENCE, castnet, start


def encoded(kind: str, size: tuple[int, int] = (32, 24), grey: bool = False, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "GIF", "AVIF", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "SGI", "PDF"])
def test_only_named_formats_are_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpeg"
    path.write_bytes(encoded(kind))
    for source in (path, path.read_bytes()):
        with pytest.raises(UserError, match=r"cannot be read as an image \(expected Jpeg, Png, Bmp, Ppm, Tiff, WebP\)"):
            decode(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_nothing_but_a_user_error_leaves_decode(kind: str) -> None:
    content, rng = encoded(kind), np.random.default_rng(1)
    for _ in range(150):
        torn = bytearray(content)
        for place in rng.integers(0, min(len(torn), 200), rng.integers(1, 6)):
            torn[place] = rng.integers(256)
        with suppress(UserError):
            assert decode(bytes(torn)).dtype == np.uint8


def test_whatever_a_decoder_raises_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for raised in (MemoryError(), RecursionError("too deep"), KeyError("tag"), Warning("odd"), ZeroDivisionError()):

        def convert(image: Image.Image, mode: str, raised: Exception = raised) -> None:
            raise raised

        monkeypatch.setattr(Image.Image, "convert", convert)
        with pytest.raises(UserError, match="image: cannot be read as an image"):
            decode(encoded("PNG"))


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (1_000_001, 1), (10_000, 10_000)])
def test_both_sides_and_their_product_are_bounded(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "PNG")
    with pytest.raises(UserError, match=rf"has {size[0]} × {size[1]} pixels; at most 64,000,000"):
        decode(buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("L", (MAX_SIDE, 1)).save(buffer, "PNG")
    assert decode(buffer.getvalue()).shape == (1, MAX_SIDE)


def test_a_jpeg_whose_scans_would_take_minutes_is_not_read() -> None:
    """Each goes over all pixels, for as little as a hundred bytes."""
    content = encoded("JPEG", progressive=True)
    begun = content.rindex(b"\xff\xda")
    last = content[begun:-2]
    several = content[:begun] + 80 * last + content[-2:]
    assert decode(several).shape == (24, 32)
    with pytest.raises(UserError, match=r"image: has [0-9]{3} scans; at most 100 are read"):
        decode(content[:begun] + 100 * last + content[-2:])
    noted = encoded("JPEG", comment=200 * b"\xff\xda")
    assert decode(noted).shape == (24, 32), "these are no scans"


def test_a_file_larger_than_any_photograph_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.jpeg").write_bytes(encoded("JPEG"))
    os.truncate(tmp_path / "large.jpeg", MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"large\.jpeg: cannot be read as an image \(has more than 257,048,576 bytes\)"):
        decode(tmp_path / "large.jpeg")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_orientation_is_ignored_alike_in_every_format(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    for grey in (False, True):
        expected = decode(encoded(kind, grey=grey, **options))
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = tmp_path / f"{orientation}.image"
            path.write_bytes(encoded(kind, grey=grey, exif=exif, **options))
            np.testing.assert_array_equal(decode(path), expected)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
def test_a_file_overwritten_while_it_is_decoded_changes_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, convert = tmp_path / "image", Image.Image.convert
    content = encoded(kind, size=(200, 100), grey=True)
    path.write_bytes(content)

    def overwrite(image: Image.Image, mode: str) -> Image.Image:
        image.load()  # which maps the file, if anything does
        path.write_bytes(bytes(len(content)))  # a file that is only cut off would end the process
        return convert(image, mode)

    expected = decode(content)
    monkeypatch.setattr(Image.Image, "convert", overwrite)
    np.testing.assert_array_equal(decode(path), expected)


def test_links_are_followed_once_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a", root / "b", outside):
        folder.mkdir(parents=True)
        (folder / "image.png").touch()
    (root / "a" / ".hidden.png").touch()
    (root / "a" / ".ipynb_checkpoints").mkdir()
    (root / "a" / ".ipynb_checkpoints" / "image.png").touch()
    (root / "b" / "up").symlink_to("..")
    (root / "b" / "beside").symlink_to("../a")
    (root / "out").symlink_to(outside)
    (root / "again").symlink_to(outside)
    assert list_images(root).unreadable == {}
    (root / "gone.png").symlink_to("nowhere")
    (root / "gone").symlink_to("nowhere")
    (root / "round").symlink_to("round")
    os.mkfifo(root / "pipe.jpeg")
    listing = list_images(root)
    assert [str(path.relative_to(root)) for path in listing.images] == [
        "a/image.png",
        "again/image.png",
        "b/image.png",
    ]
    assert {path.name for path in listing.unreadable} == {"gone.png", "gone", "round", "pipe.jpeg"}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "good.png").touch()
    scandir = os.scandir

    def refuse(path: Path) -> object:  # root, which may run the tests, reads everything
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_images(tmp_path)
    assert listing.images == [tmp_path / "good.png"]
    assert [str(error) for error in listing.unreadable.values()] == [
        f"{tmp_path}/locked: cannot be read (Permission denied)"
    ]


def test_predict_names_what_it_cannot_read(model: Path, test_images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "good.jpeg").write_bytes(test_images[0].read_bytes())
    (tmp_path / "gone.jpeg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**"):
        ran = castnet("predict", model, path, "--json")
        errors = [line["error"] for line in map(json.loads, ran.stdout.splitlines()) if "error" in line]
        assert (ran.returncode, len(ran.stdout.splitlines()), len(errors)) == (2, 3, 2), ran


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_output_that_cannot_be_written_ends_with_2(model: Path, test_images: list[Path], form: str) -> None:
    with open("/dev/full", "w") as full:
        process = start("predict", model, test_images[0], form, stdout=full)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (2, "error: output: No space left on device\n")


def test_work_goes_on_where_nobody_can_read_what_is_told_beside_it(
    model: Path, test_images: list[Path], tmp_path: Path
) -> None:
    with open("/dev/full", "w") as full:
        process = start("compare", model, model, test_images[0].parent, "-o", tmp_path / "page.html", stderr=full)
        process.communicate(timeout=PATIENCE)
        judged = start("predict", model, *test_images, stderr=full)
        out, _ = judged.communicate(timeout=PATIENCE)
        refused = start("predict", tmp_path / "none.onnx", test_images[0], stderr=full)
        refused.communicate(timeout=PATIENCE)
    assert (process.returncode, (tmp_path / "page.html").exists()) == (0, True)
    assert (judged.returncode, f"{len(test_images)} images" in out.splitlines()[-1]) == (1, True), out
    assert refused.returncode == 2


def test_folders_may_have_names_that_are_no_text(trained: Path, test_images: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xff")
    (folder / "run" / "checkpoints").mkdir(parents=True)
    shutil.copyfile(trained / "checkpoints" / "best.ckpt", folder / "run" / "checkpoints" / "best.ckpt")
    shutil.copyfile(test_images[0], folder / "image.jpeg")
    for arguments in (
        ("export", folder / "run", "-o", folder / "model.onnx"),
        ("predict", "model.onnx", "image.jpeg", "--record", "sqlite:///line.db"),
    ):
        process = start(*arguments, cwd=folder)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 1, 3), err
    assert (folder / "line.db").exists()


def test_names_move_no_cursor_and_start_no_formula(
    model: Path, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("=cmd|x.jpeg", "a;-1.jpeg", 'a;"=1.jpeg', "two\nlines.jpeg", "\x1b[31mred.jpeg", "ü.jpeg"):
        (tmp_path / name).write_bytes(test_images[0].read_bytes())
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start("predict", model, "*.jpeg", "--csv", cwd=tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 1), err
    assert {row[0] for row in list(csv.reader(out.splitlines()))[1:]} == {
        "'=cmd|x.jpeg",
        "a;'-1.jpeg",
        "a;'\"=1.jpeg",
        r"two\nlines.jpeg",
        r"\x1b[31mred.jpeg",
        r"\xfc.jpeg",
    }
    assert printable("a\u202eb\udcff") == r"a\u202eb\udcff"


def with_card(model: Path, out: Path, **changed: object) -> Path:
    loaded = onnx.load(model)
    entry = next(entry for entry in loaded.metadata_props if entry.key == "castnet")
    entry.value = json.dumps({**json.loads(entry.value), **changed})
    onnx.save(loaded, out)
    return out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": float("nan")}, "its card holds NaN"),
        ({"threshold": 1.5}, "threshold is '1.5'; expected a number from 0 to 1"),
        ({"threshold": True}, "threshold is 'True'"),
        ({"threshold": 10**400}, "threshold is '1000"),
        ({"class_names": ["ok_front"]}, "expected two names"),
        ({"defect_class": "crack"}, "defect_class is none of"),
        ({"data": "/etc/passwd"}, "card's data"),
        ({"evidence_grid": None}, "expected two numbers"),
        ({"test": {"escape_rate_interval": ["a", "b"]}}, "card's test"),
        ({"test": {"intervals": 95}}, "card's test"),
        ({"temperature": 0}, "temperature is '0'; expected a number above 0"),
        ({"evidence_grid": [0.1, 0]}, "expected two numbers"),
        ({"verdicts": ["good"] * 4}, "expected good, defective, doubtful, unfamiliar"),
        ({"note": "x" * 2_000_000}, "characters"),
    ],
)
def test_a_card_is_believed_only_as_far_as_export_writes_it(
    model: Path, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Inspector(with_card(model, tmp_path / "model.onnx", **changed))


def test_no_casting_is_good_beyond_its_cards_threshold(model: Path, tmp_path: Path, test_images: list[Path]) -> None:
    stricter = Inspector(with_card(model, tmp_path / "model.onnx", threshold=1e-6))
    good = [image for image in test_images if not Inspector(model).inspect(image).is_defect]
    assert good
    for image in good:
        with pytest.raises(UserError, match=r"beyond its card's threshold 1e-06; export it anew"):
            stricter.inspect(image)


@pytest.mark.parametrize("output", ["logits", "p_defect", "evidence"])
def test_a_model_without_an_answer_is_refused(model: Path, tmp_path: Path, output: str) -> None:
    loaded = onnx.load(model)
    loaded.graph.output.remove(next(value for value in loaded.graph.output if value.name == output))
    onnx.save(loaded, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="not a model that `castnet export` wrote"):
        Inspector(tmp_path / "model.onnx")


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
def test_a_model_that_gives_several_numbers_for_an_image_has_no_verdict(
    model: Path, tmp_path: Path, test_images: list[Path], shape: tuple[int, ...]
) -> None:
    loaded = onnx.load(model)
    (answer,) = (node for node in loaded.graph.node if "p_defect" in node.output)
    answer.output[list(answer.output).index("p_defect")] = "one"
    loaded.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), "several"))
    loaded.graph.node.append(onnx.helper.make_node("Expand", ["one", "several"], ["p_defect"]))
    (declared,) = (value for value in loaded.graph.output if value.name == "p_defect")
    declared.type.tensor_type.ClearField("shape")
    onnx.save(loaded, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"the model gives p_defect of shape \(2,\)"):
        Inspector(tmp_path / "model.onnx").inspect(test_images[0])


def test_weights_beside_the_model_are_refused(model: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(model), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    plain = (tmp_path / "m.onnx").read_bytes()
    assert b"\x0a\x08location" in plain
    # Other spellings of the same, of which only the first has as many bytes.
    for tag in (b"\x0a", b"\x8a\x00", b"\x8a\x80\x80\x80\x10"):
        (tmp_path / "m.onnx").write_bytes(plain.replace(b"\x0a\x08location", tag + b"\x08location"))
        with pytest.raises(UserError, match="weights in other files"):
            Inspector(tmp_path / "m.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_verdict(model: Path, tmp_path: Path, test_images: list[Path], value: float) -> None:
    loaded = onnx.load(model)
    tensor = max(loaded.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, value, np.float32).tobytes()
    onnx.save(loaded, tmp_path / "model.onnx")
    inspector = Inspector(tmp_path / "model.onnx")
    for judge in (inspector.inspect, inspector.heatmap):
        with pytest.raises(UserError, match="not finite"):
            judge(test_images[0])


def test_a_watched_folder_made_anew_ends_the_watch(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    process = start("predict", model, "--watch", folder)
    deadline = time.monotonic() + PATIENCE
    while not (folder / ".castnet-inspected").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert "was removed or replaced while it was watched" in err


def test_a_watch_under_nohup_goes_on_when_interrupted(model: Path, test_images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    process = start("predict", model, "--json", "--watch", tmp_path / "camera", **ignore)
    assert process.stdout
    for name in ("before.jpeg", "after.jpeg"):
        (tmp_path / "camera" / name).write_bytes(test_images[0].read_bytes())
        assert json.loads(process.stdout.readline())["file"].endswith(name)
        process.send_signal(signal.SIGINT)
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    assert process.returncode in (0, 1, 3)


NOBODY_READS = """
import signal, time
from castnet import cli
from castnet.line import watch

def show(*_):
    for seconds in (0, 0, 2 * watch.AT_ONCE):
        time.sleep(seconds)
        signal.raise_signal(signal.SIGTERM)
        print("goes on", flush=True)

watch.printer = lambda form: show
cli.main()
"""


def test_a_watch_whose_output_nobody_reads_ends_when_told_twice(
    model: Path, test_images: list[Path], tmp_path: Path
) -> None:
    shutil.copy(test_images[0], tmp_path)
    process = start("predict", model, "--watch", tmp_path, begin=["-c", NOBODY_READS])
    assert process.communicate(timeout=PATIENCE) == ("goes on\ngoes on\n", "")
    assert process.returncode == -signal.SIGTERM


def test_ctrl_c_ends_an_audit_by_its_signal(castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Links to a casting itself would change its time, which names the pixel block of whoever trains on it meanwhile.
    original = shutil.copy(next(castings.rglob("*.jpeg")), tmp_path)
    for number in range(5000):  # more than any machine reads between two looks at it
        image = tmp_path / "castings" / ("ok_front", "def_front")[number % 2] / f"{number}.jpeg"
        image.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, image)
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = start("audit", tmp_path / "castings", "-o", tmp_path / "audit", **heed)
    try:
        deadline = time.monotonic() + PATIENCE
        while f"{tmp_path}/" not in Path(f"/proc/{process.pid}/maps").read_text():  # its temporary file: it reads
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, err) == (-signal.SIGINT, "")
    assert not (tmp_path / "audit").exists()


def test_an_audit_without_room_for_its_temporary_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"an audit of 1,000 images needs 22 MB there \(No space left on device\)"):
        Spectra(1000)


def test_silent_connections_make_room_for_others(model: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-m", "castnet.cli", "serve", str(model)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [*command, "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline().split("/inspect")[0].rsplit(":", 1)[1])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(70)]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: line\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        for connection in silent:
            connection.close()
    finally:
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert err == ""


def test_pages_that_start_at_once_export_the_last_run_once(
    trained: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "checkpoints").symlink_to(trained / "checkpoints")
    exports = []

    def export(_: Path, out: Path) -> str:
        exports.append(out)
        time.sleep(0.2)
        out.write_bytes(exported.read_bytes())
        return "exported"

    monkeypatch.setattr(exporting, "export", export)
    with ThreadPoolExecutor() as pool:
        found = {page.result() for page in [pool.submit(last_run.model_of_last_run) for _ in range(2)]}
    assert len(exports) == len(found) == 1


def test_a_damaged_export_of_the_last_run_is_made_anew(
    trained: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run").symlink_to(trained)
    # The export itself has tests of its own.
    monkeypatch.setattr(exporting, "export", lambda ckpt, out: out.write_bytes(exported.read_bytes()) and "exported")
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs/a/checkpoints/best.ckpt").write_bytes((trained / "checkpoints/best.ckpt").read_bytes())
    later = tmp_path / "runs" / "z" / "checkpoints" / "best.ckpt"
    later.parent.mkdir(parents=True)
    later.write_bytes((trained / "checkpoints/last.ckpt").read_bytes())  # of a run that did not end
    os.utime(later, (later.stat().st_mtime + 60,) * 2)
    first = last_run.model_of_last_run()
    assert f"{later.relative_to(tmp_path)}: its run did not end, so this is the model of" in capsys.readouterr().out
    assert last_run.model_of_last_run() == first
    first.write_bytes(bytes(len(first.read_bytes())))
    again = last_run.model_of_last_run()
    assert "is damaged and made anew" in capsys.readouterr().out
    assert again.read_bytes() == exported.read_bytes()
