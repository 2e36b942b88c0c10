"""The model of the last training run, for who names none."""

import hashlib
from pathlib import Path

from castnet.errors import UserError, extra
from castnet.files import turn

RUNS, EXPORTED = Path("runs"), Path(".cache/models")


def model_of_last_run() -> Path:
    """The model of the last training run in runs/ that came to its end, exported if it was not before.

    Its name holds a hash of its content, so that one that was damaged since is known, and made anew.

    Raises:
        UserError: there is no such run.
    """
    runs = sorted(RUNS.rglob("checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"{RUNS}/: no training run there; `make train` first, or name a model: castnet app MODEL")
    with extra("export"):  # takes seconds, which nobody need wait for who has no run
        from castnet.export.export import export
        from castnet.model.checkpoint import is_finished
    while not is_finished(runs[-1]):
        passed = runs.pop()
        if not runs:
            raise UserError(f"{passed}: its run did not end; `castnet export --unfinished` takes it as it is")
        print(f"{passed}: its run did not end, so this is the model of the one before", flush=True)
    ckpt_path = runs[-1]
    identity = _hash(f"{ckpt_path.resolve()} {ckpt_path.stat().st_mtime_ns}".encode())
    EXPORTED.mkdir(parents=True, exist_ok=True)
    with turn(EXPORTED):
        for model in EXPORTED.glob(f"{identity}-*.onnx"):
            if model.stem == f"{identity}-{_hash(model.read_bytes())}":
                return model
            print(f"{model}: is damaged and made anew", flush=True)
            model.unlink()
        model = EXPORTED / f"{identity}.onnx"
        print(f"exporting {ckpt_path}\n{export(ckpt_path, model)}", flush=True)
        return model.rename(model.with_stem(f"{identity}-{_hash(model.read_bytes())}"))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
