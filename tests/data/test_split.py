import numpy as np
import pytest

from castnet.data.split import a_handful, by_part, first_of_class, grouped, stratified

REAL = np.repeat([0, 1], [3758, 2875])  # the labels of the public training set


def test_the_real_training_set_splits_80_to_20_with_the_class_proportions_of_the_whole() -> None:
    train, val = stratified(REAL, 0.2, seed=0)
    assert (len(train), len(val)) == (5307, 1326)
    assert np.bincount(REAL[val]).tolist() == [751, 575]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(REAL)))


def test_the_seed_decides_the_split() -> None:
    assert np.array_equal(stratified(REAL, 0.2, seed=3)[1], stratified(REAL, 0.2, seed=3)[1])
    assert not np.array_equal(stratified(REAL, 0.2, seed=3)[1], stratified(REAL, 0.2, seed=4)[1])
    labels, parts = copies([2] * 40, [3] * 40)
    third, fourth = (grouped(labels, parts, 0.2, seed=seed, fold=0)[1] for seed in (3, 4))
    assert not np.array_equal(third, fourth)


def test_keras_split_validates_on_the_first_fifth_of_each_class() -> None:
    train, val = first_of_class(REAL, 0.2)
    assert (len(train), len(val)) == (5307, 1326)
    assert val.tolist() == [*range(751), *range(3758, 3758 + 575)]


def copies(of_class_0: list[int], of_class_1: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and parts, given how many copies each part of both classes has."""
    parts = np.repeat(np.arange(len(of_class_0 + of_class_1)), of_class_0 + of_class_1)
    return (parts >= len(of_class_0)).astype(np.int64), parts


def test_folds_by_part_judge_every_image_once_and_share_out_each_class_however_many_copies_a_part_has() -> None:
    labels, parts = copies([3, 80, 2, 40] * 23, [300, 30, 320, 60, 28, 310, 290, 31, 33, 280] + [300] * 7)
    held = [by_part(labels, parts, 0.2, seed=4, fold=fold)[1] for fold in range(5)]
    assert np.array_equal(np.sort(np.concatenate(held)), np.arange(len(parts)))
    for rows in held:
        assert not np.isin(np.delete(parts, rows), parts[rows]).any()
        assert len(np.unique(parts[rows][labels[rows] == 0])) in (18, 19)
        assert len(np.unique(parts[rows][labels[rows] == 1])) in (3, 4)
    assert not np.array_equal(by_part(labels, parts, 0.2, seed=5, fold=0)[1], held[0])


def test_a_part_of_many_copies_is_not_held_out_first() -> None:
    labels, parts = copies([36] + [1] * 24, [84] + [1] * 56)
    held = [grouped(labels, parts, 0.1, seed=0, fold=fold)[1] for fold in range(10)]
    assert np.array_equal(np.sort(np.concatenate(held)), np.arange(len(parts)))
    assert len(held[0]) <= 25
    labels, parts = copies([4] * 30, [36, 36])
    for fold in range(2):
        assert len(np.unique(labels[grouped(labels, parts, 0.2, seed=0, fold=fold)[1]])) == 2


def test_a_larger_handful_holds_the_smaller_and_whole_parts() -> None:
    labels, parts = copies([1, 5, 2] * 4, [9, 3] * 5)
    previous: set[int] = set()
    for counts in ([1, 1], [1, 4], [4, 4]):
        rest, drawn = a_handful(labels, parts, counts, seed=0)
        chosen = set(parts[drawn].tolist())
        assert previous <= chosen
        assert not chosen & set(parts[rest].tolist())
        assert [len(np.unique(parts[drawn][labels[drawn] == label])) for label in (0, 1)] == counts
        previous = chosen
    for counts in ([12, 1], [1, 0]):
        with pytest.raises(ValueError, match="of which some must be left to judge"):
            a_handful(labels, parts, counts, seed=0)
