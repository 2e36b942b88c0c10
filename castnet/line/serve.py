"""The verdict over HTTP, for a line's control system: what `castnet serve` does."""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from castnet.errors import UserError
from castnet.line.inspector import Inspector, Verdict

MAX_BODY = 20_000_000  # bytes of one image file
MAX_WAITING = 64  # requests taken in and not yet answered; further ones are told to come back
BODY_SECONDS = 10.0  # for a client to send its image, so that none can hold a place for ever
DRAIN_SECONDS = 1.0  # from the signal to end, in which every client is told that its connection closes
SHUTDOWN_SECONDS = 30  # for what was taken in to be answered

IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")},
    }
}


def application(inspector: Inspector) -> FastAPI:
    """The HTTP interface to an inspector: `POST /inspect`, `GET /health`, and `/docs` made from these."""
    app = FastAPI(title="castnet", version=inspector.card["castnet"], description=inspector.card["data"]["protocol"])
    pool = ThreadPoolExecutor(os.cpu_count(), "inspect")
    waiting = 0
    app.state.draining = False

    @app.post(
        "/inspect",
        openapi_extra=IMAGE_BODY,
        responses={
            408: {"description": f"The image did not arrive within {BODY_SECONDS:g} s."},
            413: {"description": f"The image file has more than {MAX_BODY:,} bytes."},
            422: {"description": "The body cannot be read as an image."},
            503: {"description": f"{MAX_WAITING} images are waiting already; try again after a second."},
        },
    )
    async def inspect(request: Request, response: Response) -> Verdict:
        """Judge one image, which is the body of the request as it is, not a form."""
        nonlocal waiting
        if waiting >= MAX_WAITING:
            await _body(
                request, keep=False
            )  # an answer before the end of a request would look like a broken connection
            raise HTTPException(503, f"{MAX_WAITING} images are waiting already", {"Retry-After": "1"})
        waiting += 1
        if app.state.draining:
            response.headers["Connection"] = "close"
        try:
            body = await _body(request, keep=True)
            return await asyncio.get_running_loop().run_in_executor(pool, inspector.inspect, body)
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            waiting -= 1

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """What model answers here, and how many images are waiting."""
        card = inspector.card
        return {"status": "ok", "waiting": waiting, **{key: card[key] for key in ("castnet", "exported", "threshold")}}

    return app


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


class _DrainingServer(uvicorn.Server):
    """Closes no connection that its client is about to use: each learns first, with an answer, that it closes.

    New connections are refused from the signal on, for a client must not come back to a listener that is closing.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = cast(FastAPI, self.config.app)
        if app.state.draining:
            super().handle_exit(sig, frame)
        else:
            app.state.draining = True
            for listener in self.servers:
                listener.close()
            Timer(DRAIN_SECONDS, super().handle_exit, (sig, frame)).start()


def serve(model: Path, host: str, port: int) -> int:
    """Serve verdicts until terminated; what was taken in by then is still answered.

    Args:
        model: what `castnet export` wrote.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        UserError: no such model, or the address cannot be listened on.
    """
    inspector = Inspector(model)
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port}: cannot be listened on ({error}); name another --host or --port") from error
    config = uvicorn.Config(
        application(inspector),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    address = f"http://{host}:{listener.getsockname()[1]}"
    print(f"POST {address}/inspect takes an image, {address}/docs says how; Ctrl-C ends it", flush=True)
    _DrainingServer(config).run(sockets=[listener])
    return 0
