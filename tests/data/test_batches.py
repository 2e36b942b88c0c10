from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from castnet.data.batches import PartSampler, both_from_the_first
from tests.data.test_datamodule import configured

GROUPS = np.array([7, 3, 7, 5, 3, 5])


def test_a_parts_images_come_one_after_the_other_and_the_parts_in_random_order() -> None:
    orders = set()
    for seed in range(8):
        torch.manual_seed(seed)
        order = list(PartSampler(GROUPS))
        assert sorted(order) == list(range(len(GROUPS)))
        assert all(GROUPS[first] == GROUPS[second] for first, second in zip(order[::2], order[1::2], strict=True))
        orders.add(tuple(order))
    assert len(orders) > 1


@pytest.mark.parametrize("switch", [{"limit_val_batches": 1}, {"limit_val_batches": 0.5}, {"overfit_batches": 1}])
def test_what_is_cut_short_is_of_both_classes(castings: Path, tmp_path: Path, switch: dict[str, float]) -> None:
    datamodule = configured(castings, tmp_path, "data.batch_size=4")
    datamodule.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **switch)
    _, labels = next(iter(datamodule.val_dataloader()))
    assert set(labels.tolist()) == {0, 1}
    if "overfit_batches" in switch:  # for which Lightning takes the data set's own order
        dataset = datamodule.train_dataloader().dataset
        assert set(dataset.__getitems__(range(4))[1].tolist()) == {0, 1}


def test_both_classes_come_in_their_shares_from_the_first() -> None:
    labels = np.repeat([0, 1], [90, 10])
    order = both_from_the_first(labels)
    assert sorted(order) == list(range(100))
    for end in range(10, 101, 10):
        assert labels[order[:end]].sum() == end / 10
    assert set(labels[order[:2]]) == {0, 1}
