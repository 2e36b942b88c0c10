"""A training run on drawings as weights that ship, with their card: `make weights`."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from castnet.drawn.folder import FORMAT
from castnet.drawn.weights import card, drawing
from castnet.model.classifier import load_classifier
from castnet.model.start import GOOD, MEANS

LARGEST_IN_FULL = 64  # weights for larger images are stored in half precision


def ship(run: Path, target: Path) -> None:
    """Write a run's best weights as safetensors, and beside them as JSON how they were made.

    Args:
        run: folder of a run of `experiment=weights`, which may have started from another one's checkpoint or from
            weights that ship.
        target: file to write; its card gets the suffix .json.

    Raises:
        UserError: the run has no checkpoint of ours.
    """
    classifier = load_classifier(run / "checkpoints" / "best.ckpt")
    assert classifier.test_metrics.defect == 0, "drawn castings' sigmoid means good"
    size = classifier.hparams["image_size"]
    tensors = {name: tensor.contiguous() for name, tensor in classifier.network.state_dict().items()}
    if size > LARGEST_IN_FULL:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    target.write_bytes(save(tensors, {MEANS: GOOD}))
    metrics = json.loads((run / "metrics.json").read_text())
    known = {
        "image_size": size,
        "network": str(classifier.network),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "precision": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
        "drawing": drawing(),
        "learnt": _learnt(run),
        "torch": version("torch"),
        "figures": {"drawn castings never learnt": {key: metrics[key] for key in ("auroc",)}},
        "licence": "MIT",
    }
    target.with_suffix(".json").write_text(json.dumps(known, indent=1) + "\n")


def _learnt(run: Path) -> list[dict[str, Any]]:
    """What was learnt, run after run, of which each started from the one before."""
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    command = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
    start, metrics = config["model"]["start"], json.loads((run / "metrics.json").read_text())
    own = {
        "drawing": FORMAT,
        "parts": config["data"]["generate"]["n"],
        "pairs": metrics["data"]["counts"]["train"]["ok_front"],
        "epochs": config["trainer"]["max_epochs"],
        "seeds": {"drawing": config["data"]["generate"]["seed"], "training": config["seed"]},
        "command": " ".join(["python train.py", *command]),
    }
    if not start:
        return [own]
    first = card(Path(start))["learnt"] if start.endswith(".safetensors") else _learnt(Path(start).parents[1])
    return [*first, own]


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
