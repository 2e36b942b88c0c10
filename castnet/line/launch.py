"""What `castnet app` does: find the model and start the page."""

import hashlib
import os
import socket
import sys
from pathlib import Path

from castnet.errors import UserError

PAGE = Path(__file__).with_name("page.py")
RUNS, EXPORTED = Path("runs"), Path(".cache/models")
UPLOAD_MB = 20  # of one file
COLOURS = {"primaryColor": "#2f6db5", "textColor": "#1b2a3a", "secondaryBackgroundColor": "#f3f5f8"}


def launch(model: Path | None, host: str, port: int) -> int:
    """Start the page; this process becomes its server and does not return.

    Args:
        model: what `castnet export` wrote; None takes the last training run in runs/.
        host: address to listen on.
        port: port to listen on.

    Raises:
        UserError: there is no such model and no training run, or the address cannot be listened on.
    """
    model = model or _of_last_run()
    if not model.is_file():
        raise UserError(f"{model}: no such file; `castnet export RUN -o {model}` makes one of a training run")
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port}: cannot be listened on ({error}); name another --host or --port") from error
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",  # asks no questions on its first start
        "server.fileWatcherType": "none",
        "server.maxUploadSize": UPLOAD_MB,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "theme.base": "light",
        **{f"theme.{name}": colour for name, colour in COLOURS.items()},
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags, "--", str(model)])


def _of_last_run() -> Path:
    """The model of the last training run in runs/, exported if it was not before."""
    runs = sorted(RUNS.rglob("checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"{RUNS}/: no training run there; `make train` first, or name a model: castnet app MODEL")
    ckpt_path = runs[-1]
    identity = f"{ckpt_path.resolve()} {ckpt_path.stat().st_mtime_ns}"
    model = EXPORTED / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.onnx"
    if not model.exists():
        from castnet.export.export import export  # brings in torch

        EXPORTED.mkdir(parents=True, exist_ok=True)
        print(f"exporting {ckpt_path}\n{export(ckpt_path, model)}", flush=True)
    return model
