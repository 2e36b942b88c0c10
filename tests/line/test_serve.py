import asyncio
import logging
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
import torch
import uvicorn
from fastapi import FastAPI

from castnet.data.augment import network_input
from castnet.errors import UserError
from castnet.files import digest_of
from castnet.imaging.decode import decode
from castnet.imaging.listing import list_images
from castnet.imaging.resample import area_average
from castnet.line import connections, serve
from castnet.line.access import listen
from castnet.line.inspector import Inspector, Verdict
from castnet.line.record import images, verdicts
from castnet.line.serve import MAX_BODY, MAX_WAITING
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import VERDICTS
from tests.conftest import PATIENCE, castnet, start, until
from tests.line.conftest import connect
from tests.line.test_inspector import bomb

Server = tuple["subprocess.Popen[str]", str]


def test_a_clock_that_is_set_back_leaves_the_log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic = iter((0.0, 0.5, 2.0))
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: next(monotonic)))
    limit = connections.OnceASecond()
    passed = [limit.filter(logging.makeLogRecord({"created": created})) for created in (1e9, 1e9, 1e6)]
    assert passed == [True, False, True]


def test_told_to_stop_while_it_starts_it_does() -> None:
    app = FastAPI()
    app.state.draining = False
    starting = connections.DrainingServer(uvicorn.Config(app))
    starting.handle_exit(signal.SIGTERM, None)
    assert starting.should_exit


def test_told_twice_to_stop_it_waits_for_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    later = SimpleNamespace(start=lambda: None)
    monkeypatch.setattr(connections, "Timer", lambda seconds, *_: waits.append(seconds) or later)
    app = FastAPI()
    app.state.draining = False
    server = connections.DrainingServer(uvicorn.Config(app))
    server.started = True
    server.handle_exit(signal.SIGINT, None)
    assert (app.state.draining, server.should_exit, waits) == (True, False, [connections.DRAIN_SECONDS])
    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, len(waits)) == (True, 1)


@pytest.mark.parametrize(("files", "most"), [(100_000, 1000), (1032, 1000), (256, 224), (40, 8), (39, None)])
def test_as_many_connections_are_held_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int | None
) -> None:
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (files, files))
    with nullcontext() if most else pytest.raises(UserError, match="39 open files are allowed, which is too few"):
        assert connections.most_connections() == most


@contextmanager
def serving(model: Path, **seconds: float) -> Iterator[Server]:
    """A running server and its address; it waits for its clients as long as a slow machine takes.

    Args:
        model: what it judges by.
        seconds: by the names that they have in `castnet.line.connections`.
    """
    waits = dict.fromkeys(("IDLE_SECONDS", "REQUEST_SECONDS", "SHUTDOWN_SECONDS"), PATIENCE) | seconds
    code = (
        f"from castnet import cli; from castnet.line import connections, serve; vars(connections).update({waits}); "
        f"serve.BODY_SECONDS = {PATIENCE}; cli.main()"
    )
    process = start("serve", model, "--port", 0, begin=["-c", code])
    try:
        assert process.stdout
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address
        yield process, address[0]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    with serving(model) as server:
        yield server


def test_the_answer_is_the_inspectors(server: Server, inspector: Inspector, test_images: list[Path]) -> None:
    _, address = server
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        for file in test_images:
            answer = client.post("/inspect", content=file.read_bytes())
            verdict = inspector.inspect(file)
            assert answer.status_code == 200
            assert answer.json()["class_name"] == verdict.class_name
            assert answer.json()["p_defect"] == pytest.approx(verdict.p_defect, abs=1e-6)
        health = client.get("/health").json()
        assert (health["status"], health["waiting"], health["threshold"]) == ("ok", 0, inspector.threshold)
        assert health["model"] == inspector.digest  # by which the record knows it
        assert client.get("/docs").status_code == 200
        body = client.get("/openapi.json").json()["paths"]["/inspect"]["post"]["requestBody"]
        assert "image/jpeg" in body["content"]


def test_what_is_no_image_or_too_large_is_refused_and_the_next_one_judged(
    server: Server, test_images: list[Path], tmp_path: Path
) -> None:
    _, address = server
    image = test_images[0].read_bytes()
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        form = client.post("/inspect", files={"image": image})
        assert (form.status_code, "send the file alone as the body" in form.text) == (422, True)
        for body, status, reason in (
            (b"", 422, "cannot be read as an image"),
            (b"text", 422, "cannot be read as an image"),
            (image[:2000], 422, "truncated"),
            (bomb(tmp_path / "bomb.png").read_bytes(), 422, "10000 × 10000 pixels"),
            (np.random.default_rng(0).bytes(MAX_BODY + 1), 413, "more than 20,000,000 bytes"),
        ):
            answer = client.post("/inspect", content=body)
            assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
        assert client.post("/inspect", content=image).status_code == 200


def listens(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=PATIENCE).is_success
    except httpx.TransportError:
        return False


def hold(address: str, count: int) -> list[socket.socket]:
    """Begin requests that do not send their images yet."""
    host, port = address.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"POST /inspect HTTP/1.1\r\nHost: line\r\nContent-Length: 5\r\n\r\n")
    until(lambda: httpx.get(f"{address}/health", timeout=PATIENCE).json()["waiting"] == count)
    return connections


def test_one_request_too_many_is_told_to_come_back(server: Server, test_images: list[Path]) -> None:
    _, address = server
    connections = hold(address, MAX_WAITING)
    answer = httpx.post(f"{address}/inspect", content=test_images[0].read_bytes(), timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    for connection in connections:
        connection.sendall(b"image")
        assert connection.recv(1000).startswith(b"HTTP/1.1 422")
    assert httpx.post(f"{address}/inspect", content=test_images[0].read_bytes(), timeout=PATIENCE).status_code == 200


def test_an_image_that_does_not_arrive_is_not_waited_for(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "BODY_SECONDS", 0.1)
    app = serve.application(inspector, inspector.inspect, None, lambda: None)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"half of it"
        await asyncio.sleep(1)

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://line") as client:
            return await client.post("/inspect", content=slowly())

    told = asyncio.run(answer())
    assert (told.status_code, told.json()["detail"]) == (408, "the image did not arrive within 0.1 s")


@pytest.mark.parametrize(
    ("short", "begun"),
    [
        ("IDLE_SECONDS", b""),
        ("REQUEST_SECONDS", b"POST /inspect HTTP/1.1\r\nHost: line\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_connections_that_rest_and_requests_that_do_not_end_are_closed(model: Path, short: str, begun: bytes) -> None:
    with serving(model, **{short: 0.1}) as (_, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(begun)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_a_client_that_has_said_all_it_will_is_answered(server: Server, test_images: list[Path]) -> None:
    image = test_images[0].read_bytes()
    host, port = server[1].removeprefix("http://").split(":")
    for missing in (0, 1):  # bytes of the image
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            head = f"POST /inspect HTTP/1.1\r\nHost: line\r\nContent-Length: {len(image) + missing}\r\n\r\n"
            connection.sendall(head.encode() + image)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda connection=connection: connection.recv(1000), b""))
        assert answer[:12] == (b"" if missing else b"HTTP/1.1 200")


def test_a_connection_for_which_no_other_makes_room_is_told_to_come_back(model: Path) -> None:
    with serving(model, MAX_CONNECTIONS=9) as (_, address):
        held = hold(address, 8)  # beside the one that counts them
        held.append(socket.create_connection(held[0].getpeername(), timeout=PATIENCE))
        held[-1].sendall(b"POST /inspect HTTP/1.1\r\nHost: line\r\nContent-Length: 5\r\n\r\n")
        until(lambda: httpx.get(f"{address}/health", timeout=PATIENCE).status_code == 503)
        held[0].close()
        until(lambda: httpx.get(f"{address}/health", timeout=PATIENCE).status_code == 200)
        for connection in held:
            connection.close()


def test_what_was_taken_in_is_answered_after_sigterm(server: Server) -> None:
    process, address = server
    connections = hold(address, 8)
    process.send_signal(signal.SIGTERM)
    until(lambda: not listens(address))
    for connection in connections:
        connection.sendall(b"image")
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 422")
        assert b"connection: close" in answer.lower()
    assert process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)
    assert process.stderr
    assert "Traceback" not in process.stderr.read()


def test_a_client_that_goes_on_after_sigterm_learns_that_its_connection_closes(
    model: Path, test_images: list[Path]
) -> None:
    image = test_images[0].read_bytes()
    with (
        serving(model, DRAIN_SECONDS=PATIENCE) as (process, address),
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
    ):
        assert "Connection" not in client.post("/inspect", content=image).headers
        process.send_signal(signal.SIGTERM)
        while "Connection" not in (answer := client.post("/inspect", content=image)).headers:
            assert answer.status_code == 200
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")


def test_on_sigterm_the_record_is_closed_and_without_the_token_nothing_is_told(
    model: Path, test_images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(token := "0123456789abcdef")
    recorded = ("--record", "sqlite:///line.db", "--keep", "all", "--shadow", model)
    arguments = ("--port", 0, *recorded, "--token-file", "token")
    process = start("serve", model, *arguments, cwd=tmp_path)
    assert process.stdout
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert address
    with httpx.Client(base_url=address[0], timeout=PATIENCE) as client:
        told = {path: client.get(path).status_code for path in ("/health", "/docs", "/redoc", "/openapi.json")}
        assert told == {"/health": 401, "/docs": 404, "/redoc": 404, "/openapi.json": 404}
        guessed = {"Authorization": f"Bearer {token[:-1]}0"}
        assert client.post("/inspect", content=b"", headers=guessed).status_code == 401
        bearer = {"Authorization": f"bearer {token}"}
        from_a_page = bearer | {"Sec-Fetch-Site": "cross-site"}  # which has the token
        assert client.post("/inspect", content=test_images[0].read_bytes(), headers=from_a_page).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[1] == ""
    with connect(f"sqlite:///{tmp_path / 'line.db'}").connect() as connection:
        assert sorted(connection.execute(sa.select(verdicts.c.source)).scalars()) == ["serve", "shadow"]
        assert connection.execute(sa.select(images.c.content)).scalars().all() == [test_images[0].read_bytes()]
        assert set(connection.execute(sa.select(verdicts.c.image)).scalars()) == {digest_of(test_images[0])}
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_a_page_of_another_site_gets_no_verdict(
    server: Server, test_images: list[Path], site: str, status: int
) -> None:
    # Over http to other machines browsers name the page's origin alone.
    own = server[1] if status == 200 else "http://elsewhere.example"
    for headers in ({"Sec-Fetch-Site": site}, {"Origin": own}):
        sent = {"content": test_images[0].read_bytes(), "headers": headers}
        assert httpx.post(f"{server[1]}/inspect", timeout=PATIENCE, **sent).status_code == status


def test_sixty_four_clients_at_once_get_verdicts_or_503(server: Server, test_images: list[Path]) -> None:
    process, address = server
    images = [file.read_bytes() for file in test_images]

    def client(number: int) -> list[int]:
        with httpx.Client(base_url=address, timeout=PATIENCE) as connection:
            return [
                connection.post("/inspect", content=images[(number + turn) % len(images)]).status_code
                for turn in range(5)
            ]

    with ThreadPoolExecutor(64) as pool:
        statuses = [status for answers in pool.map(client, range(64)) for status in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 0
    assert process.poll() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_of_either_kind_is_listened_on(host: str) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no addresses of version 6")
    with listen(host, 0) as listener, socket.create_connection((host, listener.getsockname()[1])):
        pass


def test_a_port_that_cannot_be_had_is_one_line(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runs = {given: castnet("serve", model, "--port", given) for given in (port, 100_000)}
    for given, ran in runs.items():
        assert ran.returncode == 2
        assert f"127.0.0.1:{given}: cannot be listened on" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_http_and_inspector_judge_real_test_images_as_pytorch_does(
    server: Server, inspector: Inspector, model: Path, real_castings: Path
) -> None:
    _, address = server
    files = list_images(real_castings / "test").images[::5]
    classifier = load_classifier(model.with_suffix(".ckpt")).eval()
    pixels = torch.from_numpy(np.stack([area_average(decode(file), 64) for file in files]))
    with torch.inference_mode():
        inputs = network_input(pixels, 32)
        p_defect = classifier.defect_probability(classifier(inputs))
        decided = classifier.verdicts(p_defect, classifier.unfamiliarity(inputs)).tolist()
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        answers = [client.post("/inspect", content=file.read_bytes()).json() for file in files]
    verdicts = [asdict(verdict) for verdict in inspector.inspect_many(files) if isinstance(verdict, Verdict)]
    assert len(files) == len(verdicts) == 143
    for found in (answers, verdicts):
        assert [entry["p_defect"] for entry in found] == pytest.approx(p_defect.tolist(), abs=1e-5)
        assert [VERDICTS.index(entry["reason"] or entry["verdict"]) for entry in found] == decided
