"""Train the casting classifier: fit, then test the weights that were best on validation data.

python train.py                                          castings drawn by castnet
python train.py data=casting data.root=FOLDER            the public set
python train.py experiment=seed                          the Keras notebook
python train.py experiment=sharp                         at 128 px
python train.py -m model.lr=1e-3,2e-3                    a sweep
python train.py -m hydra/sweeper=optuna study=default    a sweep that searches
"""

import os
from dataclasses import asdict
from pathlib import Path

from castnet.errors import extra

with extra("train"):
    import hydra
    from lightning import seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint
    from omegaconf import DictConfig, OmegaConf

    from castnet import entry
    from castnet.build import build_callbacks, build_classifier, build_loggers, build_trainer, read_start
    from castnet.checks import prepare, require_a_batch, require_no_point, require_own_folder
    from castnet.data.describe import describe
    from castnet.data.subsets import draws_test, require_enough
    from castnet.model.checkpoint import finish_checkpoint, load_classifier
    from castnet.model.resume import fit, require_resumable
    from castnet.report.start import start_from
    from castnet.report.threshold import choose_operating_point, fit_familiarity
    from castnet.report.tracking import connected


def train(cfg: DictConfig) -> dict[str, float]:
    """Train as configured and return the validation metrics of the best weights, for sweeps that search."""
    rule, datamodule = prepare(cfg)
    if cfg.model.start not in (None, "drawn") and draws_test(datamodule.hparams):
        datamodule.hparams["protocol"] += f" All began from {cfg.model.start}, which may have seen any of them."
    seed_everything(cfg.seed, workers=True)
    del os.environ["PL_GLOBAL_SEED"]  # from which Lightning would seed anew where it starts processes
    require_own_folder(cfg)
    trainer = build_trainer(cfg.trainer, logger=build_loggers(cfg), callbacks=build_callbacks(cfg))
    if rule and trainer.checkpoint_callback and trainer.limit_val_batches and not cfg.ckpt_path:
        require_no_point()
    if cfg.ckpt_path:
        of = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("model", "trainer")}
        settings = {"data": datamodule.hparams, **of, "threshold": asdict(rule) if rule else None}
        run, planned = Path(cfg.paths.output_dir), cfg.trainer.max_epochs
        if (epochs := require_resumable(Path(cfg.ckpt_path), run, planned, settings)) < planned:
            trainer.fit_loop.max_epochs = epochs
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

        best = trainer.checkpoint_callback
        if not isinstance(best, ModelCheckpoint) or best.best_model_score is None:
            reached = {name: float(value) for name, value in trainer.callback_metrics.items()}
            print("No weights were kept as the best: the last are tested, uncalibrated, at model.threshold", flush=True)
            trainer.test(classifier, datamodule, verbose=False)
            return {name.removeprefix("val/"): value for name, value in reached.items() if name.startswith("val/")}
        if rule and trainer.is_global_zero:
            choose_operating_point(Path(best.best_model_path), datamodule, rule)
        elif trainer.is_global_zero:
            finish_checkpoint(Path(best.best_model_path), familiarity=vars(fit_familiarity(datamodule)[0]))
        trainer.strategy.barrier()
        classifier = load_classifier(Path(best.best_model_path))
        # Some loggers refuse settings that calibration has changed; the report tells them of its outcome.
        classifier.save_hyperparameters(dict(classifier.hparams), logger=False)
        trainer.test(classifier, datamodule, verbose=False)
        return {
            cfg.callbacks.checkpoint.monitor.removeprefix("val/"): float(best.best_model_score),
            **(classifier.validation or {}),
        }


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="train")
def main(cfg: DictConfig) -> dict[str, float]:
    return entry.job(train, cfg)


if __name__ == "__main__":
    entry.guard(main)
