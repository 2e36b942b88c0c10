"""Folder → batches."""

from castnet.data.datamodule import CastingDataModule

__all__ = ["CastingDataModule"]
