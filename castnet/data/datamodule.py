"""The LightningDataModule: a folder of castings as batches of pixels."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from castnet.data.augment import make_augmentation, network_input
from castnet.data.batches import Batch, PartSampler, PixelDataset, SharedBatches, as_fetched, both_from_the_first
from castnet.data.fit import fit_settings
from castnet.data.folder import Folder, correct_labels, read_folder
from castnet.data.groups import read_groups, read_slices
from castnet.data.pixels import fingerprints, pixel_block
from castnet.data.sources import Generated, obtain
from castnet.data.split import Indices
from castnet.data.subsets import (
    SPLITS,
    check_subsets,
    digest,
    draws_test,
    judged_by_part,
    meaning,
    seen_in_training,
    subsets,
)
from castnet.errors import UserError
from castnet.processes import count_everywhere, require_room
from castnet.settings import Count, ImageSize, Seed, Share, Text, check

NONE: Indices = np.empty(0, np.int64)


class CastingDataModule(LightningDataModule):
    """Castings of two classes, split into train, val and test.

    Where the root has train/ and test/, test is the test set and val is held out of train; a root with class folders
    alone is split three ways. Under a Trainer batches are (images, labels): float32 (n, 1, image_size, image_size) in
    [0, 1] and int64 (n,). The loaders themselves give pixels as they are stored, uint8 (n, side, side) with side =
    image_size · oversample, which `input_of` makes images of. What is predicted is the test images.

    Args:
        source: where missing images come from, see `castnet.data.sources.obtain`.
        protocol: one sentence on what the figures of this data mean; it goes into every report. A run whose parts are
            dealt anew (`split=new_parts`, `shots`) says that instead.
        root: folder of images, see `castnet.data.folder.read_folder`.
        defect_class: the class folder of defective castings.
        generate: `n`, `seed` and `pairs` of the generated castings.
        image_size: side of the network's input in pixels; None lets `setup` find it, see `castnet.data.fit`.
        oversample: images are stored and augmented at this many times `image_size` and averaged down afterwards.
        resample: how images are reduced to the stored size, `area` or `nearest`.
        batch_size: images in a batch.
        epoch_images: least number of images in an epoch; fewer training images come several times. None leaves it at
            once each.
        whole_parts: whether a part's images come in one batch, which needs `groups`.
        assignment: table of which image is train, val or test, see `castnet.data.groups.read_subsets`; None leaves it
            to the folder and `split`.
        groups: table of which images show the same part, see `castnet.data.groups.read_groups`, or None.
        corrections: images that lie in the wrong class folder, by the class they belong to, see
            `castnet.data.folder.correct_labels`; None leaves all where they are, and test images stay where the folder
            or `assignment` has them.
        slices: images to judge by themselves, see `castnet.data.groups.read_slices`.
        split: how val is held out: `stratified` (at random), `first_of_class` (as Keras does) or `grouped` (no part on
            both sides). `new_parts` holds out whole parts for test as well, from all images, whatever their folder.
        fold: which of the folds `grouped` holds out for val, and `new_parts` for test.
        shots: how many good and how many defective parts to learn from, [GOOD, DEFECTIVE]; all others are tested, and
            there is no validation but on the images learnt. None leaves it to `split`.
        val_fraction: share of the training images held out for validation.
        test_fraction: share held out for testing where the root has no test/.
        seed: seed of the split.
        augmentation: arguments of `castnet.data.augment.Augmentation`, of which `setup` finds those of its `FOUND` that
            are None; None leaves images as they are.
        augment_val: whether validation images are augmented too, as Keras' validation_split does.
        cache_dir: folder for decoded pixels.
        num_workers: processes that fetch batches; 0 is fastest while the pixels are in memory.
    """

    def __init__(
        self,
        *,
        source: Literal["generated", "casting", "folder"],
        protocol: str,
        root: Text,
        defect_class: Text,
        generate: Generated | None,
        image_size: ImageSize | None,
        oversample: Annotated[int, Field(ge=1, le=8)],
        resample: Literal["area", "nearest"],
        batch_size: Annotated[int, Field(ge=1, le=65536)],
        assignment: Text | None,
        groups: Text | None,
        corrections: dict[str, list[str]] | None,
        slices: dict[str, str],
        split: SPLITS,
        fold: Annotated[int, Field(ge=0)],
        val_fraction: Share,
        test_fraction: Share,
        seed: Seed,
        augmentation: dict[str, Any] | None,
        augment_val: bool,
        cache_dir: Text,
        num_workers: Annotated[int, Field(ge=0, le=128)],
        # Checkpoints of castnet 0.1.0 lack these.
        epoch_images: Annotated[int, Field(ge=1, le=2**40)] | None = None,
        shots: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None,
        whole_parts: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check("data", CastingDataModule.__init__, self.hparams)
        check_subsets(self.hparams)
        require_room(num_workers)
        self.save_hyperparameters({**self.hparams, "protocol": meaning(self.hparams)})
        if source == "generated" and generate is None:
            raise UserError("data.generate=None: expected n and seed of the castings to draw")
        self.augmentation = None if augmentation is None else make_augmentation(augmentation)
        self.test_subset = "test"
        self._folder: Folder | None = None
        self.learnt_before: str | None = None  # by the run that goes on, or that left the checkpoint
        self.pixels_before = torch.empty(0, dtype=torch.int64)
        self.fitted = ""

    def prepare_data(self) -> None:
        obtain(self.hparams["source"], Path(self.hparams["root"]), self.hparams["generate"])

    def setup(self, stage: str | None = None) -> None:
        """List, split and decode the images.

        Raises:
            UserError: the folder or one of its images is not as expected.
        """
        if self._folder is not None:
            return
        self.divide()
        if None in (self.hparams["image_size"], *(self.hparams["augmentation"] or {}).values()):
            settled, self.fitted = fit_settings(self.hparams, self.folder, self.rows["train"], self.groups)
            self.save_hyperparameters({**self.hparams, **settled})  # which is what loggers and checkpoints are to keep
            if self.augmentation:
                self.augmentation = make_augmentation(settled["augmentation"])
        side = self.hparams["image_size"] * self.hparams["oversample"]
        paths, cache_dir = self.folder.paths, Path(self.hparams["cache_dir"])
        self.block = pixel_block(paths, side, self.hparams["resample"], cache_dir)

    def divide(self) -> None:
        """List and split the images, without a look at their pixels.

        Raises:
            UserError: the folder is not as expected.
        """
        folder = read_folder(Path(self.hparams["root"]), self.hparams["defect_class"])
        table = self.hparams["groups"]
        self.groups = None if table is None else read_groups(Path(table), folder.files)
        self.slices = read_slices(self.hparams["slices"], folder.files)
        corrections = self.hparams["corrections"] or {}
        drawn = self.test_subset != "all"
        # Where parts are dealt, each has one class; else the folders' classes are, as for the checkpoints there are.
        dealt = correct_labels(folder, corrections, NONE) if drawn and judged_by_part(self.hparams) else folder
        everything = {"all": np.arange(len(folder.files))}
        self.rows = subsets(dealt, self.groups, self.hparams) if drawn else everything
        # Test images that others judge too keep their class, so that figures compare.
        kept = NONE if drawn and draws_test(self.hparams) else self.rows[self.test_subset]
        self._folder = correct_labels(folder, corrections, kept)
        for subset, rows in self.rows.items():
            if len(found := set(self._folder.labels[rows].tolist())) < 2:
                only = ", ".join(folder.classes[label] for label in found) or "of no class"
                raise UserError(
                    f"data.root={folder.root}: the {subset} images are all {only}; rates need both classes: add "
                    f"{'images' if self.groups is None else 'parts'} of the other"
                )
        self.n_corrected = int((self._folder.labels != folder.labels).sum())

    @cached_property
    def learnt(self) -> str:
        """Which images train and validate, see `castnet.data.subsets.digest`."""
        return digest(self.folder, self.rows)

    @cached_property
    def learnt_pixels(self) -> Tensor:
        """Fingerprints of the images that train and validate, int64."""
        rows = np.concatenate([self.rows["train"], self.rows["val"]])
        return torch.from_numpy(fingerprints(self.block, rows).copy())

    def state_dict(self) -> dict[str, Any]:
        return {"learnt": self.learnt, "learnt_pixels": self.learnt_pixels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's state.

        Raises:
            UserError: this is set up, and learns from other images than the run that left the checkpoint.
        """
        self.learnt_before = state_dict["learnt"]
        self.pixels_before = state_dict.get("learnt_pixels", self.pixels_before)  # earlier checkpoints do not say
        if self._folder is not None and not self._learns_as_before():
            raise UserError(
                f"data.root={self.hparams['root']}: its training and validation images are not those that the run was "
                "begun with; resume it on the folder as it was, or train anew"
            )

    def _learns_as_before(self) -> bool:
        if self.learnt != self.learnt_before:
            return False
        return not len(self.pixels_before) or torch.equal(self.learnt_pixels, self.pixels_before)

    @property
    def folder(self) -> Folder:
        """The images; there after `setup`."""
        assert self._folder is not None, "call prepare_data() and setup() first"
        return self._folder

    def test_slices(self) -> dict[str, NDArray[np.bool_]]:
        """Test images to judge by themselves, bool (n,) by name.

        With `groups`, those whose part neither a train nor a val image shows are among them.
        """
        rows = self.rows[self.test_subset]
        slices = {name: chosen[rows] for name, chosen in self.slices.items()}
        if self.groups is not None and self.test_subset == "test" and not judged_by_part(self.hparams):
            slices["parts never seen in training"] = ~seen_in_training(self.groups, self.rows, "test")
        return slices

    def loader(
        self, subset: str, rank: int = 0, world: int = 1, *, shuffle: bool = False, mixed: bool = False
    ) -> DataLoader[Batch]:
        """Batches, of which process `rank` of `world` gets its share.

        They are in the folder's order, one class after the other, unless shuffled or `mixed`.
        """
        rows = self.rows[subset]
        rows = rows[both_from_the_first(self.folder.labels[rows])] if mixed else rows
        dataset = PixelDataset(self.block, self.folder.labels, rows)
        sampler: Sampler[int] = SequentialSampler(dataset)
        if shuffle and self.hparams["whole_parts"]:
            assert self.groups is not None
            sampler = PartSampler(self.groups[dataset.rows])
        elif shuffle:
            sampler = RandomSampler(dataset, num_samples=max(len(dataset), self.hparams["epoch_images"] or 0))
        batch_size = self.hparams["batch_size"]
        batches: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler}
        if world > 1:
            batches = {"batch_sampler": SharedBatches(sampler, batch_size, rank, world, level=shuffle)}
        workers = self.hparams["num_workers"]
        return DataLoader(dataset, collate_fn=as_fetched, num_workers=workers, **batches)

    def train_dataloader(self) -> DataLoader[Batch]:
        overfits = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self.loader("train", *self._share(), shuffle=True, mixed=overfits)

    def val_dataloader(self) -> DataLoader[Batch]:
        limit = self.trainer.limit_val_batches if self.trainer else 1.0  # overfit_batches sets it, too
        # Validation that is cut short is not to end before the other class begins; a test keeps the files' order.
        return self.loader("val", *self._share(), mixed=isinstance(limit, int) or limit < 1)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.loader(self.test_subset, *self._share())

    predict_dataloader = test_dataloader

    def _share(self) -> tuple[int, int]:
        """Which of how many processes of the Trainer's this is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_after_batch_transfer(self, batch: Batch | Tensor, dataloader_idx: int) -> Batch | Tensor:
        if isinstance(batch, Tensor):  # the network's input, as `to_onnx` hands it over
            return batch
        pixels, labels = batch
        assert self.trainer is not None
        rank, world = self._share()
        if self.trainer.training and world > 1 and self.augmentation:
            # An image is augmented as it would be if one process had the batch alone.
            total = count_everywhere(len(pixels), pixels.device)
            pixels = self.augmentation(pixels, total, slice(rank, None, world))
            return network_input(pixels, self.hparams["image_size"]), labels
        augmented = self.trainer.training or (self.trainer.validating and self.hparams["augment_val"])
        return self.input_of(pixels, augmented=augmented), labels

    def input_of(self, pixels: Tensor, augmented: bool = False) -> Tensor:
        """Turn stored pixels into the network's input.

        Args:
            pixels: uint8 (n, side, side).
            augmented: whether to augment them, as in training.

        Returns:
            float32 (n, 1, image_size, image_size) in [0, 1].
        """
        if augmented and self.augmentation:
            pixels = self.augmentation(pixels)
        return network_input(pixels, self.hparams["image_size"])
