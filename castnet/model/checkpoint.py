"""What training leaves of a classifier, on disk."""

from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from castnet.errors import UserError
from castnet.files import remove_leftovers, write_whole
from castnet.model.classifier import CastingClassifier


def finish_checkpoint(
    ckpt_path: Path,
    hyper_parameters: dict[str, float | None] | None = None,
    offset: float = 0,
    **entries: dict[str, Any],
) -> None:
    """Mark a checkpoint as the outcome of a training run that came to its end.

    A run that was stopped leaves checkpoints whose entry `finished` is False; those written before there was such an
    entry have none.

    Args:
        ckpt_path: it is replaced only when the new one is whole.
        hyper_parameters: those to replace.
        offset: is added to the network's logits of class 1 as they were trained, whatever was added before.
        entries: others to replace or add, by name: `validation`, `familiarity`, `reference`.
    """
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    checkpoint["hyper_parameters"] |= hyper_parameters or {}
    *_, last_bias = (name for name in checkpoint["state_dict"] if name.endswith(".bias"))
    trained_bias = checkpoint.setdefault("trained_bias", checkpoint["state_dict"][last_bias])
    checkpoint["state_dict"][last_bias] = trained_bias + offset
    checkpoint |= {"finished": True, **entries}
    _save(checkpoint, ckpt_path)


class WholeCheckpoints(TorchCheckpointIO):
    """Has Lightning write a checkpoint beside the one that it replaces, and replace that when it is whole.

    Lightning's own comes from the system's temporary folder. To another file system it is copied over the one that is
    there, of which nothing is left if the disk is full or the process killed meanwhile.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        for name, state in checkpoint.get("callbacks", {}).items():
            _require_plain(f"callbacks: what {name} keeps in its state_dict", state)
        _save(checkpoint, Path(path))


def _require_plain(what: str, state: Any) -> None:
    """Refuse what could be saved and never read again: checkpoints load with `weights_only=True`."""
    content = BytesIO()
    torch.save(state, content)
    content.seek(0)
    try:
        torch.load(content, weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"{what} is more than tensors and plain values, as checkpoints hold: {state!s:.160}") from error


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    content = BytesIO()  # torch.save would tell of a full disk as a mistake of its own
    torch.save(checkpoint, content)
    remove_leftovers(path.parent, "*.partial-*")
    write_whole({path: content.getvalue()})


def why_unread(error: Exception) -> str:
    """What to tell of an error that comes of loading a file which somebody named as a checkpoint."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    # PyTorch's own words are of versions, of how to run any code and of its code.
    if isinstance(error, UnpicklingError | EOFError) or "mmap" in said or "PytorchStreamReader" in said:
        return "no PyTorch file of plain values"
    if isinstance(error, LookupError | TypeError | AttributeError):  # whose words are of this code's own names
        return "without what castnet writes into one"
    return said


def is_finished(ckpt_path: Path) -> bool:
    """Whether the training run that a checkpoint belongs to came to its end; see `finish_checkpoint`.

    Raises:
        UserError: the file is no checkpoint.
    """
    try:
        with ckpt_path.open("rb") as file:  # a path may hold bytes that are no text, which mapping it would not take
            return bool(torch.load(file, map_location="cpu", weights_only=True).get("finished", True))
    except Exception as error:  # torch.load raises many kinds for a file that is not its own
        raise UserError(f"{ckpt_path}: not a checkpoint of castnet's ({why_unread(error)})") from error


def load_classifier(ckpt_path: Path) -> CastingClassifier:
    """Load a checkpoint that castnet's training wrote.

    Raises:
        UserError: the file is missing, no checkpoint, not castnet's or of another architecture.
    """
    if not ckpt_path.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: no such file; expected a checkpoint such as RUN/checkpoints/best.ckpt")
    try:
        # Lightning would have the checkpoint name the function that makes the module.
        classifier = CastingClassifier.load_from_checkpoint(
            ckpt_path, map_location="cpu", weights_only=True, _instantiator=None
        )
    except Exception as error:  # torch.load and load_state_dict raise many kinds for a file that is not theirs
        raise UserError(f"ckpt_path={ckpt_path}: not a checkpoint of castnet's CNN ({why_unread(error)})") from error
    if not all(value.isfinite().all() for value in classifier.network.parameters()):
        raise UserError(f"ckpt_path={ckpt_path}: has weights that are not finite; train anew with a lower model.lr")
    return classifier
