"""How soon a verdict is there: cold, in process, and over a folder; and what the third verdict costs.

    python benchmarks/verdict.py MODEL IMAGES
    python -m venv KERAS && KERAS/bin/pip install tensorflow-cpu pillow
    python benchmarks/verdict.py MODEL IMAGES --keras KERAS/bin/python    # against the notebook's page path too

MODEL is what `castnet export` wrote, IMAGES a folder of JPEG files. The sides of a comparison take turns in one run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.utils import Extractor
from PIL import Image

from castnet import entry
from castnet.errors import UserError
from castnet.imaging.decode import decode
from castnet.imaging.listing import list_images
from castnet.line.inspector import Inspector
from castnet.model.network import CastingCNN
from castnet.settings import Count, require

PAGE = Path(__file__).with_name("keras_page.py")


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def load(content: bytes) -> None:
    Image.open(BytesIO(content)).load()


def described(values: Sequence[float]) -> str:
    return f"p50 {np.percentile(values, 50):8.3f}   p99 {np.percentile(values, 99):8.3f} ms"


def cold_start(model: Path, image: Path, keras: str | None, keras_model: Path, rounds: int) -> None:
    """From the shell's call to the verdict on one image."""
    command = [sys.executable, "-m", "castnet.cli", "predict", model, image]
    sides = {"castnet predict": partial(subprocess.run, command, capture_output=True)}
    if keras:
        page = [keras, PAGE, "judge", keras_model]
        sides["Keras"] = partial(subprocess.run, page, input=f"{image}\n", text=True, capture_output=True, check=True)
    times = [[seconds(side) for side in sides.values()] for _ in range(rounds)]
    print(f"cold start, one image (median of {rounds})")
    for name, values in zip(sides, zip(*times, strict=True), strict=True):
        print(f"  {name:<15} {median(values):6.3f} s")


def third_verdict(model: Path, files: Sequence[Path], folder: Path) -> None:
    """A JPEG's bytes to one of three verdicts, against the same model without what tells the unfamiliar."""
    proto = onnx.load(model)
    two = Extractor(proto).extract_model(
        [value.name for value in proto.graph.input], ["p_defect", "logits", "evidence"]
    )
    two.metadata_props.extend(proto.metadata_props)
    onnx.save(two, folder / "two.onnx")
    sides = Inspector(folder / "two.onnx"), Inspector(model)
    rows = []
    for number, file in enumerate(files):
        content, order = file.read_bytes(), sides[:: 1 if number % 2 else -1]
        times = {side: 1000 * seconds(partial(side.inspect, content)) for side in order}
        rows.append([times[side] for side in sides])
    without, with_ = np.array(rows[len(rows) // 10 :]).T
    print(f"third verdict ({len(with_)} images, in turns)")
    print(f"  two verdicts     {described(without)}\n  three verdicts   {described(with_)}")
    print(f"  ratio of medians {np.median(with_) / np.median(without):.3f}")


def in_process(
    inspector: Inspector, forward: ort.InferenceSession, files: Sequence[Path], keras: str, keras_model: Path
) -> None:
    """From a JPEG's bytes to the verdict, against the least that it needs and against the notebook's page."""
    side = inspector.card["image_size"]
    pixels = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    page = subprocess.Popen(
        [keras, PAGE, "judge", keras_model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert page.stdin
    assert page.stdout
    rows = []
    for file in files:
        content = file.read_bytes()
        page.stdin.write(f"{file}\n")
        page.stdin.flush()
        theirs = float(page.stdout.readline().split()[1])
        rows.append(
            (
                1000 * seconds(partial(load, content)),
                1000 * seconds(partial(forward.run, None, {"images": pixels})),
                1000 * seconds(partial(inspector.inspect, content)),
                theirs,
            )
        )
    page.stdin.close()
    page.wait()
    decoding, forwarding, verdict, notebook = np.array(rows[len(rows) // 10 :]).T
    floor = decoding + forwarding
    print(f"in process, JPEG bytes to verdict ({len(verdict)} images)")
    for name, values in (
        ("decode alone", decoding),
        ("forward alone", forwarding),
        ("sum of both", floor),
        ("castnet", verdict),
        ("Keras page path", notebook),
    ):
        print(f"  {name:<16} {described(values)}")
    for percentile in (50, 99):
        ours, least, theirs = (np.percentile(values, percentile) for values in (verdict, floor, notebook))
        print(f"  p{percentile}: {ours / least:.2f} of decode + forward; {theirs / ours:.1f} times faster than Keras")


def folder_rate(inspector: Inspector, files: Sequence[Path], count: int, rounds: int) -> None:
    """Images a second of a folder, against decoding them alone with as many threads."""
    with tempfile.TemporaryDirectory() as temporary:
        for index in range(count):
            shutil.copyfile(files[index % len(files)], Path(temporary) / f"{index:06d}.jpeg")
        copies = list_images(Path(temporary)).images

        def decode_all() -> None:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(decode, copies):
                    pass

        def inspect_all() -> None:
            for _ in inspector.inspect_many(copies):
                pass

        times = [(seconds(decode_all), seconds(inspect_all)) for _ in range(rounds)]
    decoding, inspecting = (median(side) for side in zip(*times, strict=True))
    print(f"a folder of {count:,} images (median of {rounds})")
    print(f"  decode  {count / decoding:8,.0f} images/s\n  inspect {count / inspecting:8,.0f} images/s")
    print(f"  {decoding / inspecting:.2f} of the rate of decoding")


def build_keras(python: str, path: Path) -> None:
    """Write the notebook's network as Keras does; refuse a Python that has no Keras."""
    try:
        subprocess.run([python, PAGE, "build", path], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise UserError(
            f"--keras {python}: {said}; expected the Python of an environment with tensorflow-cpu and pillow"
        ) from error


def bare_network(image_size: int, path: Path) -> ort.InferenceSession:
    """The network alone in ONNX Runtime, with as many threads as the inspector has."""
    program = torch.onnx.export(
        CastingCNN(image_size, dropout=0.0).eval(),
        (torch.zeros(1, 3, image_size, image_size),),
        input_names=["images"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--keras", help="Python of an environment with tensorflow-cpu and pillow")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images-in-process", type=int, default=500)
    parser.add_argument("--images-in-folder", type=int, default=10_000)
    args = parser.parse_args()
    for name in ("rounds", "images_in_process", "images_in_folder"):
        require(f"--{name.replace('_', '-')}", getattr(args, name), Count)
    files = list_images(args.images).images
    if not files:
        parser.error(f"{args.images}: no images there")
    inspector = Inspector(args.model)
    print(f"{os.cpu_count()} CPUs, {len(files):,} images in {args.images.name}")
    with tempfile.TemporaryDirectory() as folder:
        keras_model = Path(folder) / "notebook.keras"
        if args.keras:
            build_keras(args.keras, keras_model)
        cold_start(args.model, files[0], args.keras, keras_model, args.rounds)
        chosen = [files[index % len(files)] for index in range(args.images_in_process)]
        third_verdict(args.model, chosen, Path(folder))
        if args.keras:
            forward = bare_network(inspector.card["image_size"], Path(folder) / "network.onnx")
            in_process(inspector, forward, chosen, args.keras, keras_model)
    folder_rate(inspector, files, args.images_in_folder, 3)


if __name__ == "__main__":
    entry.guard(main)
