"""What Lightning, augmentation, metrics, logging and checkpoints add to the time of an epoch.

    python benchmarks/epoch.py data=casting data.root=FOLDER

Both sides train the same network on the same number of images in one run, an epoch of each in turn. The bare loop
reads ready network inputs from memory: no augmentation, no metrics, no logging, no checkpoint.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor

from castnet import entry
from castnet.data.datamodule import CastingDataModule
from castnet.model.network import CastingCNN

CONF = str(Path(__file__).parents[1] / "conf")
EPOCHS = 6


class BareLoop:
    """Training and validation as one would write them without a framework."""

    def __init__(self, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], batch_size: int) -> None:
        self.train, self.val, self.batch_size = train, val, batch_size
        self.network = CastingCNN(train[0].shape[-1], dropout=0.33).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True)

    def epoch(self) -> None:
        images, labels = self.train
        self.network.train()
        for rows in torch.randperm(len(images)).split(self.batch_size):
            self.optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(self.network(images[rows]), labels[rows]).backward()
            self.optimizer.step()
        self.network.eval()
        with torch.no_grad():
            for batch, targets in zip(*(tensor.split(self.batch_size) for tensor in self.val), strict=True):
                F.binary_cross_entropy_with_logits(self.network(batch), targets)


class Interleave(Callback):
    """Run an epoch of the bare loop before each of Lightning's, and time both."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.bare_seconds: list[float] = []
        self.lightning_seconds: list[float] = []
        self.started: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        if self.started is not None:
            self.lightning_seconds.append(now - self.started)  # includes the last epoch's checkpoints and logging
        self.bare.epoch()
        self.started = time.perf_counter()
        self.bare_seconds.append(self.started - now)


def main() -> None:
    with initialize_config_dir(CONF, version_base="1.3"), tempfile.TemporaryDirectory() as folder:
        cfg = compose("train", [*sys.argv[1:], f"trainer.max_epochs={EPOCHS + 1}", f"paths.output_dir={folder}"])
        OmegaConf.resolve(cfg.callbacks)
        datamodule = entry.build("data", cfg.data, CastingDataModule)
        datamodule.prepare_data()
        datamodule.setup()
        seed_everything(cfg.seed)
        ready = {}
        for subset in ("train", "val"):
            rows = datamodule.rows[subset]
            images = datamodule.input_of(torch.from_numpy(datamodule.block[rows])).repeat(1, 3, 1, 1)
            labels = torch.from_numpy(datamodule.folder.labels[rows]).float()
            ready[subset] = images.contiguous(memory_format=torch.channels_last), labels
        timer = Interleave(BareLoop(ready["train"], ready["val"], cfg.data.batch_size))
        callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
        trainer = entry.build_trainer(cfg.trainer, logger=entry.build_loggers(cfg), callbacks=[*callbacks, timer])
        model = entry.build_classifier(cfg.model, datamodule)
        trainer.fit(model, datamodule)
    bare, full = timer.bare_seconds[1:], timer.lightning_seconds[1:]  # the first epoch of each warms up
    print(f"{torch.get_num_threads()} threads, {len(ready['train'][0]):,} train + {len(ready['val'][0]):,} val images")
    print(f"bare loop   {median(bare):6.2f} s an epoch (median of {len(bare)}, {min(bare):.2f} to {max(bare):.2f})")
    print(f"train.py    {median(full):6.2f} s an epoch (median of {len(full)}, {min(full):.2f} to {max(full):.2f})")
    print(f"ratio       {median(full) / median(bare):6.2f}")


if __name__ == "__main__":
    entry.guard(main)
