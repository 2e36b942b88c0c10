import pytest

from castnet.model.network import CastingCNN
from castnet.report.architecture import architecture


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_drawn_layer_by_layer_and_left_as_it_was(training: bool) -> None:
    network = CastingCNN(64, dropout=0.33).train(training)
    (axis,) = architecture(network, 64).axes
    assert [text.get_text().split("\n") for text in axis.texts] == [
        ["input", "64×64×3"],
        ["Conv2d", "62×62×32"],
        ["MaxPool2d", "31×31×32"],
        ["Conv2d", "29×29×64"],
        ["MaxPool2d", "14×14×64"],
        ["Conv2d", "12×12×128"],
        ["MaxPool2d", "6×6×128"],
        ["Flatten", "4608"],
        ["Linear", "256"],
        ["Dropout", "256"],
        ["Linear", "1"],
    ]
    assert axis.get_title() == "CastingCNN: 1,273,409 parameters"
    assert all(module.training is training and not module._forward_hooks for module in network.modules())
