import numpy as np
import torch

from castnet.data.batches import PartSampler

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
