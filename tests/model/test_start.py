from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from castnet.drawn.weights import SHIPPED
from castnet.errors import UserError
from castnet.model.classifier import CastingClassifier
from castnet.model.network import CastingCNN
from castnet.model.start import read_weights, take_over

SIZE = 32


def classifier(defect_class: str = "bad", size: int = SIZE) -> CastingClassifier:
    """Its classes are bad (0) and sound (1)."""
    return CastingClassifier(
        class_names=["bad", "sound"], defect_class=defect_class, image_size=size, dropout=0, mean=0.5, std=0.25, lr=1,
        optimizer={"_target_": "torch.optim.Adam"}, one_cycle_warmup=None, temperature=1, threshold=0.5,
    ).eval()  # fmt: skip


@pytest.fixture
def learnt(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "learnt.safetensors"
    save_file(CastingCNN(SIZE, 0).half().state_dict(), path, {"sigmoid_means": "good"})
    return path


def images(size: int = SIZE) -> Tensor:
    return torch.rand(4, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_all_layers_are_taken_over_where_the_size_is_the_same(learnt: Path) -> None:
    started = classifier()
    assert take_over(started, read_weights(learnt), dense=True)
    for name, tensor in read_weights(learnt).tensors.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(started.network.state_dict()[name], tensor)


def test_weights_say_the_same_of_a_part_whichever_class_is_the_defect(learnt: Path) -> None:
    first, second = classifier("bad"), classifier("sound")
    for each in (first, second):
        take_over(each, read_weights(learnt), dense=True)
    torch.testing.assert_close(first.defect_probability(first(images())), second.defect_probability(second(images())))


def test_a_checkpoint_tells_which_class_it_means(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    for defect_class, means_defect in (("def_front", False), ("ok_front", True)):
        checkpoint["hyper_parameters"]["defect_class"] = defect_class
        torch.save(checkpoint, tmp_path / "own.ckpt")
        assert read_weights(tmp_path / "own.ckpt").means_defect is means_defect


def test_another_size_takes_the_convolutions_alone(learnt: Path) -> None:
    started = classifier(size=48)
    dense = started.network.state_dict()["layers.10.weight"].clone()
    assert not take_over(started, read_weights(learnt), dense=True)
    now, weights = started.network.state_dict(), read_weights(learnt).tensors
    torch.testing.assert_close(now["layers.6.weight"], weights["layers.6.weight"])
    torch.testing.assert_close(now["layers.10.weight"], dense)


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
def test_what_holds_no_weights_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.start=.*{name}: not weights of castnet's network"):
        read_weights(tmp_path / name)


def test_pytorchs_own_words_of_what_it_cannot_load_are_not_passed_on(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    (tmp_path / "text.ckpt").write_bytes(b"no weights at all")
    for name, reason in (
        ("tensor", "without what castnet writes into one"),
        ("text", "no PyTorch file of plain values"),
    ):
        with pytest.raises(UserError, match=rf"network \({reason}\); expected a checkpoint"):
            read_weights(tmp_path / f"{name}.ckpt")


def test_weights_of_another_network_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layers.0.weight": torch.zeros(16, 3, 3, 3)}, path, {"sigmoid_means": "good"})
    with pytest.raises(
        UserError, match=r"of another network \(layers\.0\.weight is \(16, 3, 3, 3\), not \(32, 3, 3, 3\)\)"
    ):
        read_weights(path)


def test_weights_that_are_not_finite_are_one_clear_line(tmp_path: Path) -> None:
    tensors = CastingCNN(SIZE, 0).state_dict()
    tensors["layers.0.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors", {"sigmoid_means": "good"})
    with pytest.raises(UserError, match=r"nan\.safetensors: not weights of castnet's network \(layers\.0\.bias is not"):
        read_weights(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("means", ["good", "defect"])
def test_convolutions_alone_are_taken_over_whichever_class_they_mean(tmp_path: Path, means: str) -> None:
    tensors = {name: tensor for name, tensor in CastingCNN(SIZE, 0).state_dict().items() if tensor.ndim == 4}
    tensors |= {name.replace("weight", "bias"): torch.zeros(len(tensor)) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "some.safetensors", {"sigmoid_means": means})
    assert not take_over(classifier(), read_weights(tmp_path / "some.safetensors"), dense=True)


def test_weights_that_do_not_say_what_they_mean_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent.safetensors"
    save_file(CastingCNN(SIZE, 0).state_dict(), path)
    with pytest.raises(UserError, match="its metadata have no sigmoid_means"):
        read_weights(path)


def test_a_missing_file_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"model\.start=nowhere: no such file; expected drawn, a checkpoint"):
        read_weights(Path("nowhere"))


@pytest.mark.parametrize("size", SHIPPED)
def test_shipped_weights_fit_their_network(size: int) -> None:
    assert take_over(classifier(size=size), read_weights(SHIPPED[size]), dense=True)
