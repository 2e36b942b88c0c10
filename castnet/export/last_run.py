"""The model of the last training run, for who names none."""

import hashlib
from pathlib import Path

from castnet.errors import UserError
from castnet.export.export import export

RUNS, EXPORTED = Path("runs"), Path(".cache/models")


def model_of_last_run() -> Path:
    """The model of the last training run in runs/, exported if it was not before.

    Raises:
        UserError: there is no training run.
    """
    runs = sorted(RUNS.rglob("checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"{RUNS}/: no training run there; `make train` first, or name a model: castnet app MODEL")
    ckpt_path = runs[-1]
    identity = f"{ckpt_path.resolve()} {ckpt_path.stat().st_mtime_ns}"
    model = EXPORTED / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.onnx"
    if not model.exists():
        EXPORTED.mkdir(parents=True, exist_ok=True)
        print(f"exporting {ckpt_path}\n{export(ckpt_path, model)}", flush=True)
    return model
