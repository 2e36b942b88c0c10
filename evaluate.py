"""Judge a checkpoint on a folder of castings and write the report.

python evaluate.py ckpt_path=RUN/checkpoints/best.ckpt                        castings drawn by castnet
python evaluate.py ckpt_path=… data=casting data.root=FOLDER                  the public set
python evaluate.py ckpt_path=… data=folder data.root=FOLDER data.defect_class=CLASS
python evaluate.py ckpt_path=… report.robustness=true                         under blur, noise, other light, …
"""

from pathlib import Path
from typing import Any

from castnet.errors import UserError, extra

with extra("train"):
    import hydra
    from omegaconf import DictConfig, OmegaConf
    from rich.console import Console

    from castnet import entry
    from castnet.checks import prepare_evaluation, require_a_batch
    from castnet.data.describe import describe
    from castnet.data.load import load_datamodule
    from castnet.model.checkpoint import is_finished
    from castnet.report.callbacks import TestReport
    from castnet.report.robustness import robustness, write_robustness
    from castnet.trainer import build_trainer


def evaluate(cfg: DictConfig) -> None:
    """Evaluate as configured; the report's files go into Hydra's output folder."""
    classifier, ckpt_path = prepare_evaluation(cfg), Path(cfg.ckpt_path)
    trainer = build_trainer(cfg, logger=False, callbacks=[TestReport(cfg.paths.output_dir)])
    if trainer.limit_test_batches == 0:
        raise UserError("trainer.limit_test_batches=0: leaves nothing to judge; expected at least one batch")
    limited = isinstance(trainer.limit_test_batches, int) or trainer.limit_test_batches < 1
    if cfg.report.robustness and limited:
        raise UserError(
            "report.robustness=true: judges all test images; leave trainer.limit_test_batches or fast_dev_run out"
        )
    source: dict[str, Any] = OmegaConf.to_container(cfg.data, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    source = {"cache_dir": cfg.paths.cache_dir, **source}
    datamodule = load_datamodule(ckpt_path, classifier.hparams["class_names"], **source)
    require_a_batch(trainer, datamodule, ["test"])
    if not is_finished(ckpt_path):
        datamodule.hparams["protocol"] += (
            " No threshold was chosen for this checkpoint, as one is for best.ckpt when a run ends: the cut is at "
            f"{classifier.hparams['threshold']}, uncalibrated."
        )
    print(describe(datamodule), flush=True)
    trainer.test(classifier, datamodule, verbose=False)
    if cfg.report.robustness:
        Console().print(write_robustness(robustness(classifier, datamodule), Path(cfg.paths.output_dir)))
        print(f"doses: {cfg.paths.output_dir}/robustness.csv")
    print(f"report: {cfg.paths.output_dir}/report.html")


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    entry.guard(evaluate, cfg)


if __name__ == "__main__":
    entry.guard(main)
