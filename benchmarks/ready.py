"""What benchmarks begin with: a configuration of train.py's, and its images made ready."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from castnet.build import build
from castnet.data.datamodule import CastingDataModule

CONF = Path(__file__).parents[1] / "conf"


def composed(*overrides: str) -> DictConfig:
    """What train.py would be given with these overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def made_ready(cfg: DictConfig) -> CastingDataModule:
    """The images of a configuration, fetched or drawn if they are missing, divided and decoded."""
    datamodule = build("data", cfg.data, CastingDataModule)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule
