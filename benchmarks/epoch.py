"""What Lightning, metrics, averaging of weights, logging and checkpoints add to the time of an epoch.

    python benchmarks/epoch.py data=casting data.root=FOLDER

All sides train the same network on the same images, batch by batch, in one run, an epoch of each in turn. The bare loop
cuts batches from the pixel block, augments them and steps the same optimizer, and does nothing else. A second one reads
ready network inputs from memory instead, which nobody could train with: the difference is what augmentation costs.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from statistics import median

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer, seed_everything
from omegaconf import OmegaConf
from ready import composed, made_ready
from torch import Tensor

from castnet import entry
from castnet.build import build_classifier
from castnet.data.datamodule import CastingDataModule
from castnet.model.network import CastingCNN
from castnet.trainer import build_loggers, build_trainer

EPOCHS = 6


class BareLoop:
    """Training and validation as one would write them without a framework.

    Args:
        datamodule: set up.
        augmented: whether training images are augmented, or all lie ready in memory as the network takes them.
    """

    def __init__(self, datamodule: CastingDataModule, augmented: bool) -> None:
        self.datamodule, self.augmented = datamodule, augmented
        self.batch_size = datamodule.hparams["batch_size"]
        self.network = CastingCNN(datamodule.hparams["image_size"], dropout=0).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True)
        rows, labels = datamodule.rows, torch.from_numpy(datamodule.folder.labels).float()
        self.labels = {subset: labels[rows[subset]] for subset in ("train", "val")}
        self.images = {subset: torch.from_numpy(datamodule.block[rows[subset]]) for subset in ("train", "val")}
        if not augmented:
            self.images = {subset: self.ready(images) for subset, images in self.images.items()}

    def ready(self, pixels: Tensor, augmented: bool = False) -> Tensor:
        """Stored pixels as the network takes them."""
        images = (self.datamodule.input_of(pixels, augmented) - 0.5) / 0.25
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def epoch(self) -> None:
        self.network.train()
        images, labels = self.images["train"], self.labels["train"]
        for rows in torch.randperm(len(images)).split(self.batch_size):
            batch = self.ready(images[rows], augmented=True) if self.augmented else images[rows]
            self.optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(self.network(batch), labels[rows]).backward()
            self.optimizer.step()
        self.network.eval()
        with torch.no_grad():
            sets = (tensors["val"].split(self.batch_size) for tensors in (self.images, self.labels))
            for batch, targets in zip(*sets, strict=True):
                batch = self.ready(batch) if self.augmented else batch
                F.binary_cross_entropy_with_logits(self.network(batch), targets)


class Interleave(Callback):
    """Run an epoch of the bare loops before each of Lightning's, and time all."""

    def __init__(self, loops: dict[str, BareLoop]) -> None:
        self.loops = loops
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.started: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        if self.started is not None:
            self.seconds["train.py"].append(now - self.started)  # with the last epoch's checkpoints and logging
        for name, loop in self.loops.items():
            began = time.perf_counter()
            loop.epoch()
            self.seconds[name].append(time.perf_counter() - began)
        self.started = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = composed(*overrides, f"trainer.max_epochs={EPOCHS + 1}", f"paths.output_dir={folder}")
        OmegaConf.resolve(cfg.callbacks)
        datamodule = made_ready(cfg)
        seed_everything(cfg.seed)
        loops = {"bare loop": BareLoop(datamodule, augmented=True), "not augmented": BareLoop(datamodule, False)}
        timer = Interleave(loops)
        callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
        trainer = build_trainer(cfg, logger=build_loggers(cfg), callbacks=[*callbacks, timer])
        model = build_classifier(cfg.model, datamodule)
        trainer.fit(model, datamodule)
    sizes = " + ".join(f"{len(datamodule.rows[subset]):,} {subset}" for subset in ("train", "val"))
    print(f"{torch.get_num_threads()} threads, {sizes} images")
    took = {name: seconds[1:] for name, seconds in timer.seconds.items()}  # the first epoch of each warms up
    for name, seconds in took.items():
        ratio = f"{median(took['train.py']) / median(seconds):.2f} times" if name != "train.py" else ""
        spread = f"(median of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f})"
        print(f"{name:14} {median(seconds):6.2f} s an epoch {spread}  {ratio}")


if __name__ == "__main__":
    entry.guard(main)
