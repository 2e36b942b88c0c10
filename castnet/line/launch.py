"""What `castnet app` does: start the page."""

import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

from castnet.errors import UserError, extra
from castnet.line.access import is_this_machine, listen
from castnet.line.inspector import Inspector

PAGE = Path(__file__).parent / "page" / "app.py"
RECORD = "CASTNET_RECORD"  # the environment's entry, since a URL may hold a password and a command line is public
UPLOAD_MB = 20  # of one file
COLOURS = {"primaryColor": "#2f6db5", "textColor": "#1b2a3a", "secondaryBackgroundColor": "#f3f5f8"}


LOGIN = Path(".streamlit/secrets.toml")
LOGIN_ASKED = "login"  # told to the page, which goes on to ask if the file is taken away
ASKED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


def has_login() -> bool:
    """Whether Streamlit is told who may log in: https://docs.streamlit.io/develop/concepts/connections/authentication.

    Raises:
        UserError: the file that would say so is no TOML, or does not say all that a login takes.
    """
    try:
        told = tomllib.loads(LOGIN.read_text(encoding="utf-8")) if LOGIN.is_file() else {}
    except ValueError as error:
        raise UserError(f"{LOGIN}: cannot be read as TOML ({error})") from error
    if "auth" not in told:
        return False
    login = told["auth"] if isinstance(told["auth"], dict) else {}
    if missing := [key for key in ASKED if not login.get(key)]:
        raise UserError(f"{LOGIN}: [auth] lacks {', '.join(missing)}; a login takes {', '.join(ASKED)}")
    return True


def launch(
    model: Path,
    host: str,
    port: int,
    *,
    record: str | None = None,
    keep: str = "none",
    keep_bytes: int = 0,
    insist: bool = False,
) -> NoReturn:
    """Start the page; this process becomes its server.

    Args:
        model: what `castnet export` wrote.
        host: address to listen on.
        port: port to listen on.
        record: URL of the record of this page's verdicts, and of those that it shows, if any.
        keep: which images are kept, see `castnet.line.recorder.Recorder`.
        keep_bytes: how many bytes they may have.
        insist: listen on any address without a login.

    Raises:
        UserError: it is no such model, other machines could come in without a login, or the address cannot be
            listened on.
    """
    Inspector(model)  # says now, and not on the page, that it is none
    if login := has_login():  # of which the page asks, too, wherever it listens
        with extra("page"):
            import authlib  # noqa: F401  without which Streamlit tells whoever logs in
    if not (is_this_machine(host) or login or insist):
        raise UserError(
            f"--host {host}: whoever reaches that address would see the page; describe a login under [auth] in "
            f"{LOGIN}, or insist with --open"
        )
    listen(host, port).close()
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
    if record is not None:
        os.environ[RECORD] = record
    arguments = [str(model), keep, str(keep_bytes), LOGIN_ASKED if login else ""]
    flags = [f"--{name}={value}" for name, value in options.items()]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    server = [sys.executable, "-m", "castnet.line.page.server"]
    os.execv(sys.executable, [*server, "run", str(PAGE), *flags, "--", *arguments])
