"""Where is listened, and who may come in: this machine, or whoever bears a token."""

import ipaddress
import socket
from pathlib import Path

from castnet.errors import UserError
from castnet.imaging.decode import read_file

SHORTEST_TOKEN = 16  # characters; a shorter one can be guessed


def is_this_machine(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, backlog: int | None = None) -> socket.socket:
    """A socket that listens on an address of either version of the internet protocol.

    Raises:
        UserError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two for what is no name of a host
        raise UserError(f"{host}:{port}: cannot be listened on ({error}); name another --host or --port") from error


def read_token(host: str, token_file: Path | None, insist: bool) -> str | None:
    """The token that requests must bear; none is needed where only this machine can make any.

    Args:
        host: address to listen on.
        token_file: holds the token, or None.
        insist: listen without a token, whatever the address.

    Raises:
        UserError: other machines could make requests without a token, or the file holds none.
    """
    if token_file is not None:
        try:
            token = read_file(token_file).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{token_file}: cannot be read ({error})") from error
        if len(token) < SHORTEST_TOKEN:
            raise UserError(f"{token_file}: expected a token of {SHORTEST_TOKEN} characters or more")
        if not token.isascii() or not token.isprintable() or " " in token:  # which no header would bring
            raise UserError(f"{token_file}: expected one token of letters, digits and signs of ASCII, on one line")
        return token
    if not (is_this_machine(host) or insist):
        raise UserError(
            f"--host {host}: whoever reaches that address would be answered; name a --token-file, or insist with --open"
        )
    return None
