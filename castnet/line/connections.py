"""The connections of `castnet serve`: none is held for ever, and none is closed that its client is about to use."""

import asyncio
import logging
import math
import resource
import socket
import time
from threading import Timer
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from castnet.errors import UserError

IDLE_SECONDS = 5  # that a connection may rest
REQUEST_SECONDS = 60.0  # from a request's head to the end of its answer, which its client may not fetch
MAX_CONNECTIONS = 1000
OTHER_FILES = 32  # that a process needs besides its connections, those among them that are accepted or closing
ACCEPTED_AT_ONCE = 2
BACKLOG = 1024  # connections that wait to be accepted
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
DRAIN_SECONDS = 1.0  # from the signal to end, in which every client is told that its connection closes
SHUTDOWN_SECONDS = 30  # for what was taken in to be answered


def most_connections() -> int:
    """How many connections may be open at once.

    Raises:
        UserError: too few files may be.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if (most := min(MAX_CONNECTIONS, files - OTHER_FILES)) < 8:
        raise UserError(f"{files} open files are allowed, which is too few to serve; `ulimit -n 1024` allows more")
    return most


def run(app: FastAPI, listener: socket.socket, most: int) -> None:
    """Answer by an application until the process is told to stop, and then what was taken in.

    Args:
        app: with `Farewell` before it, which goes by its `state.draining`.
        listener: listens already.
        most: connections at once.
    """
    _Connection.most = most
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_Connection,
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(OnceASecond())
    DrainingServer(config).run(sockets=[listener])


class Farewell:
    """Has every answer that begins while the server drains, be it an error, tell its client that its connection closes.

    Args:
        app: gives the answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_farewell(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["app"].state.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_farewell)


class _Connection(H11Protocol):
    """A connection that gives up its place when it rests: when no request has arrived whole up to its body."""

    most = 0  # connections at once; `run` sets it
    since = 0.0  # the time from which it rests or works
    has_ended = False  # whether its client has said all that it will

    @property
    def rests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > self.most:
            resting = [other for other in cast("set[_Connection]", self.connections) if other.rests]
            longest = min(resting, key=lambda other: other.since)
            if longest is self:
                transport.write(BUSY)
            longest.leave()

    def data_received(self, data: bytes) -> None:
        rested = self.rests
        super().data_received(data)
        if rested and not self.rests:
            self.since = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which begins the next request, if that has arrived already
        self.since = self.loop.time()
        if self.has_ended and (self.rests or self.cycle.more_body):
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has said all that it will, and close then."""
        if self.rests or self.cycle.more_body:
            return False
        self.has_ended = True
        return True

    def leave(self) -> None:
        self.connections.discard(self)  # its place is free now, though its socket closes a moment later
        self.transport.close()

    def leave_if_overdue(self) -> None:
        if self.loop.time() - self.since > (IDLE_SECONDS if self.rests else REQUEST_SECONDS):
            self.connections.discard(self)
            self.transport.abort()


class OnceASecond(logging.Filter):
    """Lets one record a second through, so that no client can fill the log."""

    next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + 1
        return True


class DrainingServer(uvicorn.Server):
    """Closes no connection that its client is about to use: each learns first, with an answer, that it closes.

    New connections are refused within a tenth of a second of the signal, for a client must not come back to a listener
    that is closing.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio set it to the number that it accepts at once

    async def on_tick(self, counter: int) -> bool:
        if cast(FastAPI, self.config.app).state.draining:
            for listener in self.servers:  # not by the signal, which may come while asyncio accepts from it
                listener.close()
        if counter % 10 == 0:  # each second
            for connection in list(self.server_state.connections):
                cast(_Connection, connection).leave_if_overdue()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = cast(FastAPI, self.config.app)
        if app.state.draining or not self.started:
            super().handle_exit(sig, frame)
        else:
            app.state.draining = True
            Timer(DRAIN_SECONDS, super().handle_exit, (sig, frame)).start()
