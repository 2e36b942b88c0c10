"""AUROC on photographs changed as another day might change them: what stands in for a day nobody here has.

The paper's and the part's brightness are changed apart, and so are light, gamma, tilt, size, blur and noise, further
than any photograph of the set goes. Run on a network that learnt the same photographs, it says what of its knowledge
depends on their light, and no more.

python benchmarks/other_light.py FOLDER RUN/checkpoints/best.ckpt …
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from castnet import entry
from castnet.audit.unwrap import locate
from castnet.data.augment import network_input
from castnet.data.folder import correct_labels, read_folder
from castnet.data.groups import read_groups
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import area_average
from castnet.model.checkpoint import load_classifier

CONF = Path(__file__).parents[1] / "conf" / "data"
COPIES = {0: 3, 1: 16}  # images of every defective and of every good photograph, of which there are few
SIDE = 300
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def changed(image: Grey, rng: Generator) -> Grey:
    """The photograph as on another day: uint8 (300, 300)."""
    frame, light = locate(image), image.astype(np.float32)
    offset = np.stack([COLUMNS.ravel() - frame.centre[0], ROWS.ravel() - frame.centre[1]])
    r = np.hypot(*np.linalg.solve(frame.matrix, offset)).reshape(image.shape)
    paper = np.clip((r - 1.84) / 0.12, 0, 1).astype(np.float32)  # beyond the rim, in radii of the opening
    level = np.median(light[r > 2])
    light = light * (1 - paper) * rng.uniform(0.55, 1.12)
    light += paper * np.clip(image + (rng.uniform(90, 245) - level), 0, 255)
    if rng.random() < 0.4:
        angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(20, 60)
        x, y = 150 + rng.uniform(110, 170) * np.array([np.cos(angle), np.sin(angle)])
        glare = np.exp(-((COLUMNS - x) ** 2 + (ROWS - y) ** 2) / spread**2)
        light += paper * rng.uniform(20, 90) * glare
    towards = rng.uniform(0, 2 * np.pi)
    light += rng.uniform(0, 35) * ((COLUMNS / 150 - 1) * np.cos(towards) + (ROWS / 150 - 1) * np.sin(towards))
    axis, turn = _rotation(rng.uniform(0, np.pi)), _rotation(rng.uniform(0, 2 * np.pi))
    warp = axis.T @ np.diag([1, rng.uniform(0.8, 1)]) @ axis * rng.uniform(0.74, 1) @ turn
    centre = np.full(2, (SIDE - 1) / 2)
    shift = centre + rng.uniform(-6, 6, 2) - warp @ centre
    light = cv2.warpAffine(
        light.astype(np.float32), np.hstack([warp, shift[:, None]]), image.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    curve = np.exp(rng.uniform(-0.45, 0.45))
    light = 255 * (np.clip(light * np.exp(rng.uniform(-0.15, 0.15)), 0, 255) / 255) ** curve
    grain = cv2.GaussianBlur(rng.standard_normal(image.shape, dtype=np.float32), (0, 0), 0.5)
    light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1)) + rng.uniform(0.5, 5) * grain
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("root", type=Path, help="the public set")
    arguments.add_argument("ckpt_path", type=Path, nargs="+")
    args = arguments.parse_args()

    known = OmegaConf.load(CONF / "casting.yaml")
    folder = read_folder(args.root, "def_front")
    folder = correct_labels(folder, OmegaConf.to_container(known)["corrections"], np.empty(0, np.int64))  # type: ignore[arg-type, call-overload, index]
    groups, rng = read_groups(CONF / "casting_clean.csv", folder.files), np.random.default_rng(0)
    chosen = []
    for group in np.unique(groups):
        label = round(folder.labels[groups == group].mean())
        rows = np.flatnonzero((groups == group) & (folder.labels == label))
        chosen += rng.choice(rows, min(COPIES[label], len(rows)), replace=False).tolist()
    images, labels = [changed(decode(folder.paths[row]), rng) for row in chosen], folder.labels[chosen]
    for path in args.ckpt_path:
        classifier = load_classifier(path).eval()
        size = classifier.hparams["image_size"]
        pixels = torch.from_numpy(np.stack([area_average(image, 2 * size) for image in images]))
        with torch.inference_mode():
            logits = torch.cat([classifier(network_input(batch, size)) for batch in pixels.split(64)]).numpy()
        print(f"{path}: AUROC {roc_auc_score(labels, logits):.4f} on {len(images)} changed photographs")


if __name__ == "__main__":
    entry.guard(main)
