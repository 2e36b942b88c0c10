"""The notebook's page path in Keras, for benchmarks/verdict.py to compare with; runs in an environment of its own.

keras_page.py build MODEL       writes the notebook's network, untrained: its speed does not depend on its weights
keras_page.py judge MODEL       for every file named on standard input, prints P(ok) and the milliseconds it took
"""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np


def build(path: str) -> None:
    """Write the network of the notebook, with its 1,273,409 parameters."""
    layers = keras.layers
    convolutions = [
        layer
        for width in (32, 64, 128)
        for layer in (layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D(2))
    ]
    head = [
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dropout(0.33),
        layers.Dense(1, activation="sigmoid"),
    ]
    keras.Sequential([keras.Input((64, 64, 3)), *convolutions, *head]).save(path)


def judge(path: str) -> None:
    """Judge the files named on standard input, one a line, as the notebook's page does."""
    model = keras.models.load_model(path)
    for line in sys.stdin:
        start = time.perf_counter()
        image = keras.utils.img_to_array(keras.utils.load_img(line.strip(), target_size=(64, 64))) / 255
        p_ok = float(model.predict(np.expand_dims(image, 0), verbose=0)[0, 0])
        print(f"{p_ok:.6f} {1000 * (time.perf_counter() - start):.3f}", flush=True)


if __name__ == "__main__":
    {"build": build, "judge": judge}[sys.argv[1]](sys.argv[2])
