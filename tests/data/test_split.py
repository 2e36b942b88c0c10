import numpy as np

from castnet.data.split import first_of_class, stratified

REAL = np.repeat([0, 1], [3758, 2875])  # the labels of the public training set


def test_the_real_training_set_splits_80_to_20_with_the_class_proportions_of_the_whole() -> None:
    train, val = stratified(REAL, 0.2, seed=0)
    assert (len(train), len(val)) == (5307, 1326)
    assert np.bincount(REAL[val]).tolist() == [751, 575]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(REAL)))


def test_the_seed_decides_the_split() -> None:
    assert np.array_equal(stratified(REAL, 0.2, seed=3)[1], stratified(REAL, 0.2, seed=3)[1])
    assert not np.array_equal(stratified(REAL, 0.2, seed=3)[1], stratified(REAL, 0.2, seed=4)[1])


def test_keras_split_validates_on_the_first_fifth_of_each_class() -> None:
    train, val = first_of_class(REAL, 0.2)
    assert (len(train), len(val)) == (5307, 1326)
    assert val.tolist() == [*range(751), *range(3758, 3758 + 575)]
