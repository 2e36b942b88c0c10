"""Train the casting classifier: fit, then test the weights that were best on validation data.

python train.py                                          castings drawn by castnet
python train.py data=casting data.root=FOLDER            the public set
python train.py experiment=seed                          the Keras notebook
python train.py -m model.lr=1e-3,2e-3                    a sweep
python train.py -m hydra/sweeper=optuna study=default    a sweep that searches
"""

import os
from pathlib import Path

from castnet.errors import extra

with extra("train"):
    import hydra
    from lightning import seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint
    from omegaconf import DictConfig

    from castnet import entry
    from castnet.build import build_classifier, read_start
    from castnet.checks import epochs_to_have, prepare, require_a_batch, require_no_point, require_own_folder
    from castnet.data.describe import describe
    from castnet.data.subsets import require_enough
    from castnet.model.checkpoint import load_classifier
    from castnet.model.resume import fit
    from castnet.report.start import start_from
    from castnet.report.threshold import choose_operating_point
    from castnet.report.tracking import connected
    from castnet.trainer import build_callbacks, build_loggers, build_trainer


def train(cfg: DictConfig) -> dict[str, float]:
    """Train as configured and return the validation metrics of the best weights, for sweeps that search."""
    rule, datamodule = prepare(cfg)
    seed_everything(cfg.seed, workers=True)
    del os.environ["PL_GLOBAL_SEED"]  # from which Lightning would seed anew where it starts processes
    require_own_folder(cfg)
    trainer = build_trainer(cfg, logger=build_loggers(cfg), callbacks=build_callbacks(cfg))
    if cfg.ckpt_path:
        trainer.fit_loop.max_epochs = epochs_to_have(cfg, datamodule, rule)
    elif rule and trainer.checkpoint_callback and trainer.limit_val_batches:
        require_no_point()
    datamodule.prepare_data()
    datamodule.setup()
    require_enough(datamodule.rows, trainer.world_size)
    require_a_batch(trainer, datamodule)
    print(describe(datamodule), flush=True)

    weights = read_start(cfg.model.start, datamodule.hparams["image_size"])
    classifier = build_classifier(cfg.model, datamodule)
    if weights:
        print(start_from(classifier, weights, datamodule), flush=True)
    with connected(trainer, datamodule.folder.classes):
        fit(trainer, classifier, datamodule, cfg.ckpt_path)
        if not isinstance(best := trainer.checkpoint_callback, ModelCheckpoint) or best.best_model_score is None:
            reached = {name: float(value) for name, value in trainer.callback_metrics.items()}
            print("No weights were kept as the best: the last are tested, uncalibrated, at model.threshold", flush=True)
            trainer.test(classifier, datamodule, verbose=False)
            return {name.removeprefix("val/"): value for name, value in reached.items() if name.startswith("val/")}
        if trainer.is_global_zero:
            choose_operating_point(Path(best.best_model_path), datamodule, rule)
        trainer.strategy.barrier()
        classifier = load_classifier(Path(best.best_model_path))
        # Some loggers refuse settings that calibration has changed; the report tells them of its outcome.
        classifier.save_hyperparameters(dict(classifier.hparams), logger=False)
        trainer.test(classifier, datamodule, verbose=False)
        monitored = {cfg.callbacks.checkpoint.monitor.removeprefix("val/"): float(best.best_model_score)}
        return monitored | (classifier.validation or {})


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="train")
def main(cfg: DictConfig) -> dict[str, float]:
    return entry.job(train, cfg)


if __name__ == "__main__":
    entry.guard(main)
