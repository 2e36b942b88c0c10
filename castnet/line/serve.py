"""The verdict over HTTP, for a line's control system: what `castnet serve` does."""

import asyncio
import hmac
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from starlette.requests import ClientDisconnect

from castnet.errors import UserError
from castnet.line.access import listen, read_token
from castnet.line.connections import BACKLOG, Farewell, most_connections, run
from castnet.line.inspector import Inspector, Verdict
from castnet.line.judge import Judge, judging
from castnet.line.predict import Record

MAX_BODY = 20_000_000  # bytes of one image file
MAX_WAITING = 64  # requests taken in and not yet answered; further ones are told to come back
BODY_SECONDS = 10.0  # for a client to send its image, so that none can hold a place for ever

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
    app.add_middleware(Farewell)
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
        told = {key: inspector.card[key] for key in ("castnet", "exported", "threshold")}
        return {"status": "ok", "waiting": waiting, "model": inspector.digest, **told}

    return app


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
        most = most_connections()
        listener = listen(host, port, BACKLOG)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        how = "" if token else f", {address}/docs says how"
        print(f"POST {address}/inspect takes an image{how}; Ctrl-C ends it", flush=True)
        run(application(inspector, judge, token, stack.close), listener, most)
    return 0
