"""castnet's settings and sweeper, with a result that is worked out instead of trained for."""

import os
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from castnet import entry


def result(cfg: DictConfig) -> dict[str, float]:
    """Least at a learning rate of 1e-3. QUICK_BEGUN names a file that notes every job.

    A job takes QUICK_SECONDS, or those after the first one QUICK_LATER.
    """
    seconds = os.environ.get("QUICK_SECONDS", "0")
    if "QUICK_BEGUN" in os.environ:
        with open(os.environ["QUICK_BEGUN"], "a") as begun:
            seconds = os.environ.get("QUICK_LATER", seconds) if begun.tell() else seconds
            begun.write(f"{cfg.model.lr}\n")
    time.sleep(float(seconds))
    if cfg.model.lr > 0.5:
        raise ValueError("diverged")
    loss = abs(cfg.model.lr - 1e-3) + 0.1 * cfg.seed
    return {"loss": loss, "escape_rate": cfg.model.lr, "overkill_rate": 1 - cfg.model.lr}


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[2] / "conf"), config_name="train")
def main(cfg: DictConfig) -> dict[str, float]:
    return entry.job(result, cfg)


if __name__ == "__main__":
    entry.guard(main)
