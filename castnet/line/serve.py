"""The verdict over HTTP, for a line's control system: what `castnet serve` does."""

import asyncio
import hmac
import logging
import math
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Annotated, Any, cast

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from castnet.errors import UserError
from castnet.line.access import listen, read_token
from castnet.line.inspector import Inspector, Verdict
from castnet.line.judge import Judge, judging
from castnet.line.predict import Record

MAX_BODY = 20_000_000  # bytes of one image file
MAX_WAITING = 64  # requests taken in and not yet answered; further ones are told to come back
BODY_SECONDS = 10.0  # for a client to send its image, so that none can hold a place for ever
IDLE_SECONDS = 5  # that a connection may rest
REQUEST_SECONDS = 60.0  # from a request's head to the end of its answer, which its client may not fetch
MAX_CONNECTIONS = 1000
OTHER_FILES = 32  # that a process needs besides its connections, those among them that are accepted or closing
ACCEPTED_AT_ONCE = 2
BACKLOG = 1024  # connections that wait to be accepted
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
DRAIN_SECONDS = 1.0  # from the signal to end, in which every client is told that its connection closes
SHUTDOWN_SECONDS = 30  # for what was taken in to be answered

IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")},
    }
}


def application(inspector: Inspector, judge: Judge, token: str | None, close: Callable[[], None]) -> FastAPI:
    """The HTTP interface to an inspector: `POST /inspect`, `GET /health`, and `/docs` made from these without a token.

    Args:
        inspector: whose card is shown.
        judge: gives the verdict on a body.
        token: what every request must bear, if any.
        close: is called when all is answered, for uvicorn ends the process by the signal that it was told to stop by.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        close()

    def require_token(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, given = authorization.partition(" ")
        if token and not (scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())):
            raise HTTPException(401, "expected a bearer token", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(
        title="castnet",
        version=inspector.card["castnet"],
        description=inspector.card["data"]["protocol"],
        dependencies=[Depends(require_token)],
        openapi_url=None if token else "/openapi.json",  # nor /docs: the token's dependency does not reach them
        lifespan=lifespan,
    )
    app.add_middleware(_Farewell)
    pool = ThreadPoolExecutor(os.cpu_count(), "inspect")
    waiting = 0
    app.state.draining = False

    @app.post(
        "/inspect",
        openapi_extra=IMAGE_BODY,
        responses={
            403: {"description": "A page of another site sent the image, and no token is asked for."},
            408: {"description": f"The image did not arrive within {BODY_SECONDS:g} s."},
            413: {"description": f"The image file has more than {MAX_BODY:,} bytes."},
            422: {"description": "The body cannot be read as an image."},
            503: {"description": f"{MAX_WAITING} images are waiting already; try again after a second."},
        },
    )
    async def inspect(request: Request) -> Verdict:
        """Judge one image, which is the body of the request as it is, not a form."""
        nonlocal waiting
        of_another = not token and _is_of_another_site(request)  # which could bear no token
        if of_another or waiting >= MAX_WAITING:
            # An answer before the end of a request would look like a broken connection.
            await _body(request, keep=False)
            if of_another:
                raise HTTPException(403, "pages of other sites are not answered")
            raise HTTPException(503, f"{MAX_WAITING} images are waiting already", {"Retry-After": "1"})
        waiting += 1
        try:
            body = await _body(request, keep=True)
            return await asyncio.get_running_loop().run_in_executor(pool, judge, body)
        except UserError as error:
            is_form = request.headers.get("content-type", "").startswith("multipart/")
            hint = "; this is a form: send the file alone as the body (curl --data-binary @FILE)" if is_form else ""
            raise HTTPException(422, f"{error}{hint}") from error
        finally:
            waiting -= 1

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """What model answers here, and how many images are waiting."""
        card = inspector.card
        return {"status": "ok", "waiting": waiting, **{key: card[key] for key in ("castnet", "exported", "threshold")}}

    return app


class _Farewell:
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


def _is_of_another_site(request: Request) -> bool:
    """Whether a page of another site sent it: one that is open on a machine that is let in could else fill the record.

    Browsers say so, over http to other machines by the page's origin alone (https://www.w3.org/TR/fetch-metadata/).
    """
    origin = request.headers.get("origin")
    own = origin is None or origin.partition("://")[2] == request.headers.get("host")
    return request.headers.get("sec-fetch-site", "none" if own else "cross-site") not in ("none", "same-origin")


async def _body(request: Request, keep: bool) -> bytes:
    """The request's body, or nothing where it is only to be read to its end."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY:
                    raise HTTPException(413, f"the image file has more than {MAX_BODY:,} bytes")
                if keep:
                    chunks.append(chunk)
    except TimeoutError as error:
        raise HTTPException(408, f"the image did not arrive within {BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client has gone") from error
    return b"".join(chunks)


class _Connection(H11Protocol):
    """A connection that gives up its place when it rests: when no request has arrived whole up to its body."""

    most = 0  # connections at once; `serve` sets it
    since = 0.0  # the time from which it rests or works

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
        super().on_response_complete()
        self.since = self.loop.time()

    def leave(self) -> None:
        self.connections.discard(self)  # its place is free now, though its socket closes a moment later
        self.transport.close()

    def leave_if_overdue(self) -> None:
        if self.loop.time() - self.since > (IDLE_SECONDS if self.rests else REQUEST_SECONDS):
            self.connections.discard(self)
            self.transport.abort()


class _OnceASecond(logging.Filter):
    """Lets one record a second through, so that no client can fill the log."""

    next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + 1
        return True


class _DrainingServer(uvicorn.Server):
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


def serve(
    model: Path,
    host: str,
    port: int,
    *,
    record: Record | None = None,
    shadow: Path | None = None,
    token_file: Path | None = None,
    insist: bool = False,
) -> int:
    """Serve verdicts until terminated; what was taken in by then is still answered.

    Args:
        model: what `castnet export` wrote.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        record: what keeps the verdicts, if anything does.
        shadow: another model, whose verdicts are recorded and answer nobody.
        token_file: holds the token that requests must bear.
        insist: listen on any address without one.

    Raises:
        UserError: no such model, other machines could come in unasked, the address cannot be
            listened on, or too few files may be open at once.
    """
    token = read_token(host, token_file, insist)
    inspector = Inspector(model)
    with ExitStack() as stack:
        judge = stack.enter_context(judging(inspector, record, shadow))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        _Connection.most = min(MAX_CONNECTIONS, files - OTHER_FILES)
        if _Connection.most < 8:
            raise UserError(f"{files} open files are allowed, which is too few to serve; `ulimit -n 1024` allows more")
        listener = listen(host, port, BACKLOG)
        config = uvicorn.Config(
            application(inspector, judge, token, stack.close),
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
            logging.getLogger(name).addFilter(_OnceASecond())
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        how = "" if token else f", {address}/docs says how"
        print(f"POST {address}/inspect takes an image{how}; Ctrl-C ends it", flush=True)
        _DrainingServer(config).run(sockets=[listener])
    return 0
