"""Train the casting classifier: fit, then test the weights that were best on validation data.

python train.py                                          castings drawn by castnet
python train.py data=casting data.root=FOLDER            the public set
python train.py experiment=seed                          the Keras notebook
python train.py -m model.lr=1e-3,2e-3                    a sweep
"""

from pathlib import Path

from castnet.errors import UserError, extra

with extra("train"):
    import hydra
    from hydra.utils import instantiate
    from lightning import seed_everything
    from omegaconf import DictConfig

    from castnet import entry
    from castnet.model.classifier import finish_checkpoint, load_classifier
    from castnet.report.threshold import choose_operating_point


def train(cfg: DictConfig) -> float:
    """Train as configured and return the best value of the monitored validation metric, for sweeps."""
    if cfg.ckpt_path:
        load_classifier(Path(cfg.ckpt_path))  # refuses what is no checkpoint of ours before time is spent

    rule = entry.build("threshold", cfg.threshold) if "threshold" in cfg else None
    datamodule = entry.build("data", cfg.data)
    seed_everything(cfg.seed, workers=True)
    trainer = entry.build(
        "trainer",
        cfg.trainer,
        logger=instantiate(cfg.logger),
        callbacks=[instantiate(callback) for callback in cfg.callbacks.values()],
    )
    datamodule.prepare_data()
    datamodule.setup()
    print(datamodule.describe(), flush=True)

    classifier = entry.build("model", cfg.model, class_names=datamodule.folder.classes)
    trainer.fit(classifier, datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)

    best = trainer.checkpoint_callback
    if not Path(best.best_model_path).is_relative_to(best.dirpath):
        raise UserError(f"ckpt_path={cfg.ckpt_path}: has all {cfg.trainer.max_epochs} epochs; raise trainer.max_epochs")
    if rule:
        choose_operating_point(Path(best.best_model_path), datamodule, rule)
    else:
        finish_checkpoint(Path(best.best_model_path))
    trainer.test(load_classifier(Path(best.best_model_path)), datamodule, verbose=False)
    return float(best.best_model_score)


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
def main(cfg: DictConfig) -> float:
    return entry.guard(train, cfg)


if __name__ == "__main__":
    entry.guard(main)
