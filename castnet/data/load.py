"""The data of a checkpoint, made ready again to judge it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from castnet.data.datamodule import CastingDataModule
from castnet.data.pixels import fingerprints
from castnet.data.subsets import draws_test, judged_by_part
from castnet.errors import UserError, written
from castnet.settings import check


def load_datamodule(ckpt_path: Path, class_names: Sequence[str], /, **source: Any) -> CastingDataModule:
    """Prepare a folder of castings exactly as they were prepared for a checkpoint, to evaluate it.

    Evaluated are the images of root/test. Where the root has none, evaluated are the test images held out in training
    if it is the folder that the checkpoint was trained on, or else all images.

    Args:
        ckpt_path: checkpoint whose data settings are taken.
        class_names: the classes the checkpoint knows.
        source: arguments of `CastingDataModule` to replace, `root` and `defect_class` among them.

    Raises:
        UserError: the folder has other classes, or is not as expected.
    """
    check("data", CastingDataModule.__init__, source)
    try:
        loaded = CastingDataModule.load_from_checkpoint(ckpt_path, weights_only=True, _instantiator=None)
    except (UserError, TypeError, AttributeError) as error:
        raise UserError(f"ckpt_path={ckpt_path}: has no data settings of castnet's ({error})") from error
    trained = loaded.hparams
    if source["defect_class"] != trained["defect_class"]:
        known = trained["defect_class"]
        on = f"data={trained['source']}"
        if trained["source"] == "folder":
            on = " ".join([on, *(written(f"data.{key}", trained[key]) for key in ("root", "defect_class"))])
        raise UserError(
            f"data.defect_class={source['defect_class']}: the checkpoint was trained to find {known}, with {on}; name "
            "images of that kind"
        )
    for key in ("image_size", "oversample", "resample"):
        if source.get(key, trained[key]) != trained[key]:
            raise UserError(f"data.{key}={source[key]}: the checkpoint was trained with {trained[key]}; leave it out")
    root = Path(source["root"])
    same_folder = root.resolve() == Path(trained["root"]).resolve() or _has_learnt(loaded, source)
    if same_folder and source["assignment"] != trained["assignment"]:
        raise UserError(
            f"data.assignment={source['assignment']}: the checkpoint was trained on this folder with "
            f"data.assignment={trained['assignment']}, so its training images would be among the test images"
        )
    for key in ("split", "fold", "shots", "val_fraction", "test_fraction", "seed"):
        if same_folder and source.get(key, trained[key]) != trained[key]:
            raise UserError(
                f"data.{key}={source[key]}: the checkpoint was trained on this folder with {trained[key]}; leave it out"
            )
    if same_folder:
        known = {key: trained[key] for key in ("groups", "corrections") if source.get(key) is None}
        source = {**source, **known}
    if same_folder and draws_test(trained):
        source = {**source, "protocol": trained["protocol"]}  # which says what kind of test that is
    if not same_folder:
        source = {**source, "split": "stratified", "fold": 0, "shots": None, "whole_parts": False}
    datamodule = CastingDataModule(**{**trained, **source})
    if not same_folder and source["assignment"] is None and not (root / "test").is_dir():
        datamodule.test_subset = "all"
    datamodule.prepare_data()
    datamodule.setup()
    folders_own = datamodule.folder.is_test is not None and not any(
        judged_by_part(settings) for settings in (trained, datamodule.hparams)
    )
    if same_folder and not folders_own and loaded.learnt_before not in (None, datamodule.learnt):
        raise UserError(
            f"data.root={root}: its images, or what is known of them, are not what the checkpoint was trained with, so "
            "what it learnt could be among the test images; restore them, or judge new images in a folder of their own"
        )
    if datamodule.folder.classes != list(class_names):
        raise UserError(
            f"data.root={root}: has the classes {datamodule.folder.classes}, the checkpoint knows {class_names}"
        )
    judged = fingerprints(datamodule.block, datamodule.rows[datamodule.test_subset])
    if known := int(np.isin(judged, loaded.pixels_before.numpy()).sum()):
        datamodule.hparams["protocol"] += (
            f" {known:,} of the {len(judged):,} are, pixel by pixel, among those that the checkpoint learnt: of these "
            "the figures tell what it remembers."
        )
    return datamodule


def _has_learnt(loaded: CastingDataModule, source: dict[str, Any]) -> bool:
    """Whether a folder of another name, a copy, say, holds the images that a checkpoint learnt, divided as then."""
    groups = source["groups"] or loaded.hparams["groups"]
    datamodule = CastingDataModule(**{**loaded.hparams, "root": source["root"], "groups": groups})
    try:
        datamodule.divide()
    except UserError:
        return False
    return datamodule.learnt == loaded.learnt_before
