"""Whether a run has learnt anything, and what to try if not."""

import shlex
from collections.abc import Mapping
from typing import Any

from castnet.data.fit import PART, SURFACE

# Chance is 0.5; validation sets of a few dozen images stray from it by about 0.1.
LEAST_AUROC = 0.65
WHOLE = 0.95


def advice(validation: Mapping[str, float], data: Mapping[str, Any]) -> str | None:
    """One line for a run that tells its validation images no better than chance, or rejects or passes a class whole.

    Args:
        validation: metrics of the validation images at the operating point.
        data: settings of the `CastingDataModule`.

    Returns:
        What was found and what to try, the likeliest first; None where the run has learnt something.
    """
    found = []
    if validation["auroc"] < LEAST_AUROC:
        found.append(f"AUROC is {validation['auroc']:.2f}, where chance has 0.5")
    if validation["overkill_rate"] >= WHOLE:
        found.append(f"{validation['overkill_rate']:.0%} of the good parts do not pass")
    if validation["escape_rate"] >= WHOLE:
        found.append(f"{validation['escape_rate']:.0%} of the defects pass")
    if not found:
        return None
    tries = []
    if validation["auroc"] >= LEAST_AUROC:
        tries.append(
            f"threshold.*, since AUROC is {validation['auroc']:.2f} and the cut may be too careful or too bold"
        )
    augmentation = data.get("augmentation") or {}
    if (augmentation.get("shift"), augmentation.get("zoom")) == SURFACE:
        shift, zoom = PART
        tries.append(
            f"model.anywhere=false data.augmentation.shift={shift} data.augmentation.zoom={zoom}, if these are parts "
            "that fill their image and no surfaces"
        )
    if augmentation.get("flip") or augmentation.get("rotation") or augmentation.get("turns", 1) > 1:
        still = "data.augmentation.flip=false data.augmentation.turns=1 data.augmentation.rotation=0"
        tries.append(f"{still}, if the defect is how a part lies")
    if data["image_size"] < 128:
        tries.append("data.image_size=128, since defects may be too small to be seen")
    tries.append("more epochs (trainer.max_epochs)")
    tries.append(f"`castnet audit {shlex.quote(data['root'])}`, since labels may contradict each other")
    tries.append("more parts, above all of the rarer class")
    tries.append("a filter or another light, if only their colour tells defects: images are read as grey")
    # Of a handful, they are the same.
    judged = "the images that it learnt" if data.get("shots") else "validation images"
    return f"This run has learnt nothing to rely on: on {judged} {' and '.join(found)}. Try {'; '.join(tries)}."
