"""The network of the Keras notebook; it knows nothing of training."""

from typing import cast

from torch import Tensor, nn


class GlobalMaxPool(nn.Module):
    """The largest of each channel's values."""

    def forward(self, features: Tensor) -> Tensor:
        """float32 (n, channels) from (n, channels, height, width)."""
        return features.amax((2, 3))


class CastingCNN(nn.Module):
    """Three convolutions of 3 × 3 without padding, each pooled by 2, and two dense layers.

    At 64 × 64 pixels it has 1,273,409 parameters. Weights start Glorot-uniform and biases at zero, Keras' defaults.

    Args:
        image_size: side of the input in pixels, at least `castnet.settings.SMALLEST_IMAGE`.
        dropout: share of the dense units dropped in training.
        anywhere: whether the dense layers are told only how strongly each feature answers where it does so most (global
            max pooling; Oquab et al., Is object localization for free?, CVPR 2015), and not where: it has 126,529
            parameters at any size then.
    """

    def __init__(self, image_size: int, dropout: float, anywhere: bool = False) -> None:
        super().__init__()
        side = image_size
        for _ in range(3):
            side = (side - 2) // 2
        # ReLU and max-pooling commute, and ReLU on the pooled quarter is cheaper.
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            GlobalMaxPool() if anywhere else nn.Flatten(),
            nn.Linear(128 if anywhere else 128 * side * side, 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, 1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def bias(self) -> nn.Parameter:
        """The last layer's, float32 (1,), which every logit has in it."""
        return cast(nn.Linear, self.layers[-1]).bias

    def forward(self, images: Tensor) -> Tensor:
        """Logits of class 1, float32 (n,), from images float32 (n, 3, image_size, image_size)."""
        logits: Tensor = self.layers(images)
        return logits.flatten()
