import fcntl
import json
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from castnet.errors import UserError
from castnet.files import digest_of
from castnet.line import record, spool, watch
from castnet.line.inspector import Inspector, Source, Verdict
from castnet.line.judge import WAITING, judging
from castnet.line.known import without_password
from castnet.line.predict import predict
from castnet.line.record import engine_for, images, models, verdicts
from castnet.line.recorder import Recorder, spool_for
from castnet.line.review import decide
from castnet.line.spool import Spool
from tests.conftest import PATIENCE, PostgreSQL, castnet, castnet_here, until
from tests.line.conftest import connect


def count(url: str) -> int:
    with connect(url).connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(verdicts)).scalar_one()


def test_a_command_records_what_it_says(
    model: Path, castings: Path, tmp_path: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    monkeypatch.chdir(tmp_path)
    ran = castnet("predict", model, castings / "test", "--record", url, "--keep", "rejected")
    assert ran.returncode == 1, ran.stderr
    with connect(url).connect() as connection:
        rows = connection.execute(sa.select(verdicts)).all()
        kept = connection.execute(sa.select(images.c.image, images.c.content)).all()
        assert connection.execute(sa.select(models.c.model)).scalars().all() == [rows[0].model]
    assert len(rows) == 12
    for row in rows:
        verdict = inspector.inspect(row.name)
        assert (row.p_defect, row.verdict, row.reason) == (verdict.p_defect, verdict.verdict, verdict.reason)
    assert {row.image for row in rows if row.verdict != "good"} == {image for image, _ in kept}
    assert not list(tmp_path.glob(".castnet-spool/*/*")), "all is in the database"


def test_of_which_verdicts_images_are_kept_is_as_asked(inspector: Inspector, tmp_path: Path) -> None:
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    asked = {"none": "", "unsure": "unsure", "rejected": "unsure defective", "all": "unsure defective good"}
    for keep, kept in asked.items():
        with Recorder(f"sqlite:///{tmp_path}/{keep}.db", "watch", inspector, keep, spool=tmp_path) as recorder:
            for word in ("unsure", "defective", "good"):
                recorder.put(word, word.encode(), replace(verdict, verdict=word))
        with connect(f"sqlite:///{tmp_path}/{keep}.db").connect() as connection:
            found = connection.execute(sa.select(images.c.content)).scalars().all()
            rows = connection.execute(sa.select(verdicts)).all()
        assert {content.decode() for content in found} == set(kept.split())
        assert {(row.unfamiliarity, row.latency_ms) for row in rows} == {(verdict.unfamiliarity, verdict.latency_ms)}
        assert all(abs(row.time - time.time()) < PATIENCE for row in rows)


@pytest.mark.parametrize("watched", [False, True])
def test_what_is_recorded_is_what_was_judged(
    model: Path, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    url, inspect, content = f"sqlite:///{tmp_path / 'record.db'}", Inspector.inspect, test_images[0].read_bytes()
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera" / "image.jpeg").write_bytes(content)

    def overwritten(inspector: Inspector, source: Source) -> Verdict:
        verdict = inspect(inspector, source)
        (tmp_path / "camera" / "image.jpeg").write_bytes(b"another")
        if watched:
            signal.raise_signal(signal.SIGTERM)
        return verdict

    monkeypatch.setattr(Inspector, "inspect", overwritten)
    monkeypatch.setattr(watch, "POLL", 0.01)
    record = partial(Recorder, url, keep="all", spool=tmp_path / "spool")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if watched:
        watch.watch(model, tmp_path / "camera", "json", record)
    else:
        predict(model, [str(tmp_path / "camera")], "json", record)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    with connect(url).connect() as connection:
        assert connection.execute(sa.select(images.c.content)).scalars().all() == [content]


def test_the_oldest_images_go_beyond_the_bound(
    model: Path, inspector: Inspector, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spool, "CHUNK", 2000)  # bytes, fewer than any image has
    url, bound = f"sqlite:///{tmp_path / 'record.db'}", 30_000
    with Recorder(url, "page", inspector, keep="all", keep_bytes=bound, spool=tmp_path) as recorder:
        for file in test_images:
            recorder.put(str(file), file.read_bytes(), inspector.inspect(file))
    assert not list(tmp_path.glob("record.db-*")), "who copies the file has all of it"
    with connect(url).connect() as connection:
        sizes = connection.execute(sa.select(images.c.bytes)).scalars().all()
    assert 0 < sum(sizes) <= bound
    assert count(url) == len(test_images)
    castnet_here("predict", model, test_images[0], "--record", url, "--keep", "all", "--keep-bytes", 1)
    with connect(url).connect() as connection:
        assert not connection.execute(sa.select(images.c.bytes)).all()


@pytest.mark.parametrize("days", [400, 0.5])
def test_a_clock_that_was_ahead_keeps_no_image_for_ever(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    url, bound = f"sqlite:///{tmp_path / 'record.db'}", 30_000
    newest: bytes = b""
    for ahead in (days * 86_400, 0):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=time.time, ahead=ahead: now() + ahead)
            for file in test_images:
                newest = file.read_bytes() + str(ahead).encode()
                with Recorder(url, "page", inspector, keep="all", keep_bytes=bound, spool=tmp_path) as recorder:
                    recorder.put(str(file), newest, inspector.inspect(file))
    with connect(url).connect() as connection:
        assert newest in connection.execute(sa.select(images.c.content)).scalars().all()


def test_a_clock_that_was_behind_has_the_oldest_go_all_the_same(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    for number, behind in enumerate((0, 0, 0, 30 * 365 * 86_400, 0)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=time.time, behind=behind: now() - behind)
            with Recorder(url, "page", inspector, keep="all", keep_bytes=1000, spool=tmp_path) as recorder:
                recorder.put(str(number), str(number).encode() * 400, inspector.inspect(test_images[0]))
    with connect(url).connect() as connection:
        kept = connection.execute(sa.select(images.c.content)).scalars().all()
    assert sorted(content[:1] for content in kept) == [b"2", b"4"]


def test_what_people_decided_on_does_not_go_and_that_others_go_is_said_once(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Recorder(url, "watch", inspector, keep="all", spool=tmp_path) as recorder:
        for file in test_images:
            recorder.put(str(file), file.read_bytes(), inspector.inspect(file))
    with connect(url).begin() as connection:
        oldest = connection.execute(sa.select(verdicts).order_by(verdicts.c.time).limit(1)).one()
        decide(connection, oldest.id, "passed", True)
    assert capsys.readouterr().err == ""
    with Recorder(url, "page", inspector, keep="all", keep_bytes=1, spool=tmp_path) as recorder:
        for written, name in enumerate(("a", "b"), len(test_images) + 1):
            recorder.put(name, test_images[-1].read_bytes(), inspector.inspect(test_images[-1]))
            until(lambda written=written: count(url) == written)  # by itself, so that images go twice
    with connect(url).connect() as connection:
        assert connection.execute(sa.select(images.c.image)).scalars().all() == [oldest.image]
    assert re.findall("--keep-bytes 1: the oldest go, ([0-9]+) now", capsys.readouterr().err) == [
        str(len(test_images) - 1)
    ]


def test_what_another_process_left_comes_with_its_card_and_is_not_bounded_by_one_that_keeps_nothing(
    inspector: Inspector, model: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'later' / 'record.db'}"
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    with Recorder(url, "watch", inspector, keep="all", spool=tmp_path) as left:
        left.put("a", b"image", verdict)
    (tmp_path / "later").mkdir()
    file = tmp_path / "other.onnx"
    file.write_bytes(model.read_bytes() + b"\x32\x05other")  # one that has a doc_string
    other, digests = Inspector(file), set(map(digest_of, (model, file)))
    file.write_bytes(b"by now another model")
    Recorder(url, "watch", other, keep_bytes=0, spool=tmp_path).close()
    with connect(url).connect() as connection:
        cards = {row.model: json.loads(row.card) for row in connection.execute(sa.select(models))}
        assert cards == dict.fromkeys(digests, inspector.card)
        assert connection.execute(sa.select(images.c.content)).scalars().all() == [b"image"]


def test_what_is_no_record_is_one_line(model: Path, test_images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("no database")
    for taken in (tmp_path, tmp_path / "notes.db"):
        with pytest.raises(UserError, match=f"{taken} is there and no database of SQLite; name another file"):
            Recorder(f"sqlite:///{taken}", "serve", Inspector(model), spool=tmp_path / "spool")
    ran = castnet("predict", model, test_images[0], "--keep", "all")
    assert (ran.returncode, "--keep all: images are kept beside verdicts; say where with --record" in ran.stderr) == (
        2,
        True,
    )
    ran = castnet("predict", model, test_images[0], "--record", "mysql://user:secret@host/line")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "secret" not in ran.stderr
    assert "record: is of mysql; expected sqlite or postgresql" in ran.stderr
    ran = castnet("predict", model, test_images[0], "--record", "postgresql+psycopg://u:secret@host:port/line")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "record: no URL such as sqlite:///record.db" in ran.stderr


@pytest.mark.parametrize("theirs", ["create table images (id, url)", "create table verdicts (id, time)"])
def test_a_database_of_somebody_elses_is_refused_before_the_first_verdict_and_stays_as_it_is(
    inspector: Inspector, theirs: str, tmp_path: Path
) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as shop:
        shop.execute(theirs)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"record: .*shop\.db: its table (images|verdicts) has no .*; name another"):
        Recorder(f"sqlite:///{file}", "serve", inspector, spool=tmp_path / "spool")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


def test_a_database_of_somebody_elses_that_was_locked_at_the_start_stays_as_it_is(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as shop:
        shop.execute("create table images (id, url)")
        before = file.read_bytes()
        shop.execute("begin exclusive")
        recorder = Recorder(f"sqlite:///{file}", "serve", inspector, spool=tmp_path / "spool")
    with recorder:
        recorder.put("a", b"", inspector.inspect(test_images[0]))
    assert "its table images has no bytes, content, image, time" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "where", ["sqlite:///{}/line.db", "sqlite:////" + 300 * "x", "postgresql+psycopg://u@db..plant/line"]
)
def test_what_cannot_be_looked_into_may_be_a_record_later(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)  # as of a folder that is closed to whoever is not root
    engine_for(where.format(tmp_path))


def test_a_server_is_not_waited_for_before_there_is_something_to_write() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine_for(f"postgresql+psycopg://u@127.0.0.1:{server.getsockname()[1]}/line")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(
        UserError,
        match=r"psycopg2, by which this URL is reached, is not installed here; expected .*postgresql\+psycopg:",
    ):
        engine_for("postgresql+psycopg2://u@host/line")


def test_a_password_in_the_urls_query_is_told_nobody(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql+psycopg://u@127.0.0.1:1/line?password="
    with Recorder(f"{url}secret", "serve", inspector, spool=tmp_path) as recorder:
        recorder.put("a", b"", inspector.inspect(test_images[0]))
    said = capsys.readouterr().err
    assert "u@127.0.0.1:1/line cannot be written" in said
    assert "secret" not in said
    assert without_password(f"{url}secret") == "postgresql+psycopg://u@127.0.0.1:1/line"
    assert spool_for(make_url(f"{url}secret"), tmp_path) == spool_for(make_url(f"{url}other"), tmp_path)


def test_a_file_that_another_process_is_about_to_make_may_be_a_record(tmp_path: Path) -> None:
    file, over = tmp_path / "record.db", threading.Event()
    for begun in (b"", bytes(16), b"SQLite f" + bytes(8), bytes(8) + b"ormat 3\0"):
        file.write_bytes(begun)
        engine_for(f"sqlite:///{file}")

    def come_and_go() -> None:
        while not over.is_set():
            file.touch()
            file.unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(1000):
            engine_for(f"sqlite:///{file}")
    finally:
        over.set()
        other.join()


def test_verdicts_go_on_while_the_server_is_dead_and_stand_there_once(
    postgresql: PostgreSQL,
    inspector: Inspector,
    test_images: list[Path],
    tmp_path: Path,
) -> None:
    url = postgresql.new_database()
    verdict, content = inspector.inspect(test_images[0]), test_images[0].read_bytes()
    recorder = Recorder(url, "serve", inspector, spool=tmp_path)
    for _ in range(100):
        recorder.put("before", content, verdict)
    until(lambda: count(url) == 100)
    postgresql.kill()
    start = time.perf_counter()
    for _ in range(1000):
        recorder.put("meanwhile", content, verdict)
    assert time.perf_counter() - start < PATIENCE / 5, "no verdict waits for the database"
    recorder.close()
    assert list(tmp_path.glob("*/*.jsonl")), "what could not be written is in the spool"
    postgresql.start()
    changed = sa.make_url(url).set(password="changed").render_as_string(hide_password=False)
    with Recorder(changed, "serve", inspector, spool=tmp_path) as after:
        after.put("after", content, verdict)
    assert count(url) == 1101
    assert not list(tmp_path.glob("*/*.jsonl"))


def test_a_server_of_any_encoding_that_takes_all_text_is_taken_and_another_is_named(
    postgresql: PostgreSQL, inspector: Inspector, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    verdict, name = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03"), "güß✓.png"
    plain = postgresql.new_database("SQL_ASCII")
    with Recorder(plain, "serve", inspector, spool=tmp_path) as recorder:
        recorder.put(name, b"image", verdict)
    assert capfd.readouterr().err == ""
    with connect(plain).connect() as connection:
        assert connection.execute(sa.select(verdicts.c.name)).scalars().all() == [name]
    with Recorder(postgresql.new_database("LATIN1"), "serve", inspector, spool=tmp_path) as recorder:
        recorder.put(name, b"image", verdict)
    assert "cannot be written (its encoding is LATIN1" in capfd.readouterr().err


def test_a_server_that_does_not_answer_is_away(
    inspector: Inspector, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(record.PSYCOPG, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://line@127.0.0.1:{silent.getsockname()[1]}/line"
        with Recorder(url, "serve", inspector, spool=tmp_path) as recorder:
            recorder.put("a", b"image", inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03"))
    assert "cannot be written (" in capfd.readouterr().err


def test_a_spool_replayed_again_adds_nothing(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    monkeypatch.setattr("castnet.line.recorder.FLUSH_SECONDS", PATIENCE)  # only at the end
    recorder = Recorder(url, "serve", inspector, spool=tmp_path / "spool")
    recorder.put("once", b"image", verdict)
    (spool,) = (tmp_path / "spool").rglob("*.jsonl")
    written = spool.read_bytes()
    assert written
    recorder.close()
    spool.write_bytes(written + written[:50])  # as if the process had died before it emptied it, while it wrote
    again = f"sqlite:///{tmp_path / 'spool' / '..' / 'record.db'}"  # the same file
    Recorder(again, "serve", inspector, spool=tmp_path / "spool").close()
    assert count(url) == 1
    assert not list(tmp_path.glob("spool/*/*.jsonl"))
    with pytest.raises(UserError, match="record: "):
        Recorder("mssql+pyodbc://host", "serve", inspector)


def test_a_file_that_is_moved_away_keeps_what_it_has_and_a_new_one_takes_what_follows(
    inspector: Inspector, tmp_path: Path
) -> None:
    here, archive = tmp_path / "line.db", tmp_path / "archive.db"
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    with Recorder(f"sqlite:///{here}", "serve", inspector, spool=tmp_path) as recorder:
        for name in ("before", "after"):
            recorder.put(name, b"image", verdict)
            # And nobody has it open any more, whose files beside it would be taken for the new one's.
            until(lambda: count(f"sqlite:///{here}") > 0 and not list(tmp_path.glob("line.db-*")))
            if name == "before":
                here.rename(archive)
    assert (count(f"sqlite:///{archive}"), count(f"sqlite:///{here}")) == (1, 1)


@pytest.mark.parametrize("more", [0, 2])
def test_a_spool_that_is_tidied_away_is_there_when_its_verdicts_are_wanted(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], more: int
) -> None:
    url, verdict = f"sqlite:///{tmp_path / 'away' / 'record.db'}", inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    (tmp_path / "away").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_drain", lambda _: (_ for _ in ()).throw(OSError("away")))
        with Recorder(url, "serve", inspector, spool=tmp_path / "spool") as recorder:
            recorder.put("a", b"image", verdict)
            shutil.rmtree(tmp_path / "spool")
            for _ in range(more):
                recorder.put("b", b"image", verdict)
    (said,) = re.findall("verdicts wait in (.*), to be written", capfd.readouterr().err)
    assert Path(said).is_file()
    Recorder(url, "serve", inspector, spool=tmp_path / "spool").close()
    assert count(url) == 1 + more


def test_a_spool_that_another_process_may_take_is_locked(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, others = fcntl.flock, list[Spool]()

    def after_others(file: IO[bytes], operation: int) -> None:
        monkeypatch.undo()
        others.extend(map(Spool, tmp_path.glob("*/*.jsonl")))  # as a process does that starts
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_others)
    with Recorder(f"sqlite:///{tmp_path / 'record.db'}", "serve", inspector, spool=tmp_path) as recorder:
        recorder.put("a", b"image", inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03"))
        (own,) = map(Spool, tmp_path.glob("*/*.jsonl"))
        assert not own.taken
    assert count(f"sqlite:///{tmp_path / 'record.db'}") == 1


def test_what_is_damaged_in_a_spool_is_told_and_left_out(
    inspector: Inspector, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    monkeypatch.setattr("castnet.line.recorder.FLUSH_SECONDS", PATIENCE)  # only at the end
    recorder = Recorder(url, "serve", inspector, keep="all", spool=tmp_path / "spool")
    recorder.put("a", b"image\t\n", verdict)
    (spool,) = (tmp_path / "spool").rglob("*.jsonl")
    _card, written = spool.read_bytes().splitlines(keepends=True)
    recorder.close()
    spool.write_bytes(b"\0" * 99 + b"\n{}\n7\n" + written)  # as a machine that failed may leave it, without card
    Recorder(url, "serve", inspector, spool=tmp_path / "spool").close()
    assert count(url) == 1
    with connect(url).connect() as connection:
        assert connection.execute(sa.select(images.c.content)).scalars().all() == [b"image\t\n"]
    assert "3 verdicts in" in capfd.readouterr().err
    assert not spool.exists()


def test_a_name_that_is_no_text_is_recorded_as_escapes(inspector: Inspector, engine: sa.Engine) -> None:
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    url = engine.url.render_as_string(hide_password=False)
    with Recorder(url, "page", inspector) as recorder:
        recorder.put("\udcff\0.png", b"image", verdict)
    with engine.connect() as connection:
        assert connection.execute(sa.select(verdicts.c.name)).scalars().all() == ["\\udcff\\0.png"]


def test_on_a_full_disk_verdicts_go_on_and_what_is_lost_is_told(
    inspector: Inspector, tmp_path: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'later' / 'record.db'}"
    verdict = inspector.inspect(b"P5 2 2 255 \x00\x01\x02\x03")
    with Recorder(url, "watch", inspector, keep="all", spool=small_disk) as recorder:
        for index in range(300):
            recorder.put(f"{index}.png", bytes([index % 256]) * 2000, verdict)
    told = capfd.readouterr().err.splitlines()
    assert sum("takes no more (No space left on device)" in line for line in told) == 1, told
    assert sum("verdicts wait in" in line for line in told) == 2, told  # the database is away, and at the end
    (lost,) = (line for line in told if "are not recorded" in line)
    (tmp_path / "later").mkdir()
    Recorder(url, "watch", inspector, spool=small_disk).close()
    with connect(url).connect() as connection:
        names = connection.execute(sa.select(verdicts.c.name)).scalars().all()
        kept = len(connection.execute(sa.select(images.c.image)).all())
    assert len(set(names)) == len(names) < 300
    assert 0 < kept < len(names), "an image that finds no room is left out before its verdict is"
    assert f"{300 - len(names):,} verdicts and {300 - kept:,} images" in lost
    assert not list(small_disk.glob("*/*.jsonl"))


def test_a_shadow_that_cannot_follow_tells_how_many_images_it_left_out(
    model: Path,
    test_images: list[Path],
    tmp_path: Path,
    inspector: Inspector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    record = partial(Recorder, url, spool=tmp_path / "spool")
    may_end, inspect = threading.Event(), Inspector.inspect

    def slowly(judge: Inspector, source: Source) -> Verdict:
        assert judge is inspector or may_end.wait(PATIENCE)
        return inspect(judge, source)

    monkeypatch.setattr(Inspector, "inspect", slowly)
    unheard = pytest.raises(UserError, match="--shadow: its verdicts go nowhere without --record")
    with unheard, judging(inspector, None, shadow=model):
        pass
    with judging(inspector, record, shadow=model) as judge:
        for _ in range(WAITING + 3):
            judge(test_images[0].read_bytes())
        may_end.set()
        until(lambda: count(url) == 2 * WAITING + 3)
        judge(test_images[0].read_bytes())  # by now it can
    assert f"--shadow {model}: could not follow, and did not judge 3 images" in capsys.readouterr().err
    assert count(url) == 2 * WAITING + 5
