"""The page with a record, in a browser."""

import hashlib
import json
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
import sqlalchemy as sa
import streamlit as st
from PIL import ExifTags, Image
from playwright.sync_api import Browser, Locator, Page, expect
from streamlit.testing.v1 import AppTest

from castnet.errors import UserError
from castnet.files import digest_of
from castnet.line.inspector import Inspector, Verdict
from castnet.line.launch import ASKED, LOGIN_ASKED, PAGE, launch
from castnet.line.page.inspect_tab import Casting, judge
from castnet.line.page.looks import picture
from castnet.line.page.review_tab import GLANCE
from castnet.line.page.station import Station
from castnet.line.record import images, models, reviews, verdicts
from castnet.line.recorder import Recorder
from tests.conftest import PATIENCE, castnet_here, free_port
from tests.line.conftest import connect, zone_at_noon
from tests.line.test_page import open_page, served, upload

WIDTHS = (1440, 390)  # of a desk's screen and of a telephone's, in which order a page is looked at


def fill(url: str, model: Path, inspector: Inspector, files: list[Path]) -> None:
    """10,000 verdicts: 9,000 of yesterday, one in a hundred rejected, and 1,000 of today, one in five."""
    now, rng = time.time(), random.Random(0)
    digest, contents = digest_of(model), [file.read_bytes() for file in files]
    rows = []
    for index in range(10_000):
        today = index < 1000
        rejected = rng.random() < (0.2 if today else 0.01)
        verdict, reason = ("defective", None) if rejected else ("good", None)
        if index < 3:
            verdict, reason = "unsure", "unfamiliar"
        rows.append(
            {
                "id": UUID(int=rng.getrandbits(128)).hex,
                "time": now - rng.random() * 3600 - (0 if today else 86400),
                "source": "watch",
                "name": f"camera/*{index}* :red[$x$].jpeg",  # of which a page might make something
                "image": hashlib.sha256(contents[index % len(contents)]).hexdigest(),
                "model": digest,
                "p_defect": rng.random(),
                "unfamiliarity": rng.random(),
                "verdict": verdict,
                "reason": reason,
                "latency_ms": 1.0,
            }
        )
    with connect(url).begin() as connection:
        connection.execute(verdicts.insert(), rows)
        connection.execute(models.insert(), {"model": digest, "card": json.dumps(inspector.card), "since": now})
        connection.execute(
            images.insert(),
            [
                {"image": hashlib.sha256(content).hexdigest(), "content": content, "bytes": len(content), "time": now}
                for content in contents
            ],
        )


@pytest.fixture(scope="module")
def url(model: Path, inspector: Inspector, castings: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('record') / 'line.db'}"
    fill(url, model, inspector, sorted((castings / "test").rglob("*.jpeg")))
    return url


@pytest.fixture(scope="module")
def address(url: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page at whose place it is about noon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone_at_noon())
        patch.chdir(tmp_path_factory.mktemp("spool"))
        with served(model, "--record", url, "--keep", "all") as address:
            yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = open_page(browser, address, viewport={"width": WIDTHS[-1], "height": 900})
    expect(page.get_by_text("No image at hand?")).to_be_visible()
    yield page
    page.close()


def open_tab(page: Page, name: str) -> None:
    """Click until it is open: Streamlit can lose a click that comes while it draws a page."""
    heading, end = page.get_by_role("heading", name=name, exact=True, level=1), time.monotonic() + PATIENCE
    while not heading.is_visible():
        assert time.monotonic() < end
        page.get_by_role("link", name=name, exact=True).click()
        with suppress(AssertionError):
            expect(heading).to_be_visible(timeout=10_000)


def settle(page: Page) -> None:
    """Wait until the page is drawn to its end, and see that nothing lies beyond its right edge, on no screen."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        fits = "document.querySelector('[data-testid=stMain]').scrollWidth <= window.innerWidth"
        page.wait_for_function(fits, timeout=1000 * PATIENCE)


def count(url: str, *conditions: sa.ColumnElement[bool]) -> int:
    engine = connect(url)
    with engine.connect() as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(verdicts).where(*conditions)).scalar_one()
    engine.dispose()
    return found


def decisions(url: str) -> list[tuple[str, bool, str]]:
    engine = connect(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(reviews).order_by(reviews.c.time)).all()
    engine.dispose()
    return [(row.verdict_id, row.is_defect, row.drawn_as) for row in rows]


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def test_today_counts_and_names_the_hours_that_are_not_usual(page: Page, url: str, model: Path) -> None:
    open_tab(page, "Today")
    settle(page)
    today = verdicts.c.time > time.time() - 43_200
    rejected = count(url, today, verdicts.c.verdict == "defective", verdicts.c.source != "page")
    expect(page.get_by_test_id("stMetric").filter(has_text="rejected")).to_contain_text(f"{rejected:,}")
    expect(page.get_by_test_id("stAlert").first).to_contain_text("Outside the limits: 1")
    expect(page.get_by_text("Shewhart")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(2)
    expect(page.get_by_alt_text("heat map of camera/")).to_have_count(6)
    expect(page.get_by_text(re.compile(r"camera/\*\d+\* :red\[\$x\$\]\.jpeg"))).to_have_count(6)


def judged(page: Page) -> Locator:
    return page.get_by_test_id("judged")


def shown(page: Page, other_than: str = "") -> str:
    """The number of the verdict that is shown, as soon as it is another and has been looked at."""
    wait_for(page, lambda: judged(page).count() == 1 and judged(page).get_attribute("data-id") != other_than)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_timeout(1000 * GLANCE)
    return judged(page).get_attribute("data-id") or ""


def shown_after_key(page: Page, key: str, other_than: str) -> str:
    """The number of the verdict that a key leads to: Streamlit can lose one that comes while it draws a page."""
    end = time.monotonic() + PATIENCE
    while judged(page).get_attribute("data-id") == other_than:
        assert time.monotonic() < end
        page.keyboard.press(key)
        with suppress(AssertionError):
            expect(judged(page)).not_to_have_attribute("data-id", other_than, timeout=10_000)
    return shown(page, other_than=other_than)


def press_twice(page: Page, key: str) -> None:
    """Press a key twice within a tenth of a second by the events' own clock, however late a slow machine has them."""
    keyboard = page.context.new_cdp_session(page)
    now = page.evaluate("performance.timeOrigin + performance.now()") / 1000
    pressed = {"key": key, "text": key, "code": f"Key{key.upper()}", "windowsVirtualKeyCode": ord(key.upper())}
    for at in (now, now + 0.1):
        for kind in ("keyDown", "keyUp"):
            keyboard.send("Input.dispatchKeyEvent", {**pressed, "type": kind, "timestamp": at})
    keyboard.detach()


def test_a_person_decides_by_key_and_by_button_and_takes_back(page: Page, url: str) -> None:
    before = decisions(url)
    open_tab(page, "Review")
    first = shown(page)
    settle(page)
    second = shown_after_key(page, "g", other_than=first)
    assert decisions(url) == [*before, (first, False, "unsure")]
    page.get_by_role("button", name="Defective").click()
    third = shown(page, other_than=second)
    assert decisions(url) == [*before, (first, False, "unsure"), (second, True, "unsure")]
    page.keyboard.press("s")
    expect(page.get_by_role("button", name="Good, overrule")).to_be_visible()
    fourth = shown(page, other_than=third)
    for key, back in (("u", second), ("u", first)):
        page.keyboard.press(key)
        wait_for(page, lambda back=back: back not in {row[0] for row in decisions(url)})
        assert shown(page, other_than=fourth) == back
        fourth = back
    assert decisions(url) == before
    settle(page)


def test_a_press_decides_one_casting_however_soon_the_next_comes_and_however_long_it_is_held(
    page: Page, url: str
) -> None:
    before = decisions(url)
    open_tab(page, "Review")
    first = shown(page)
    press_twice(page, "g")
    second = shown(page, other_than=first)
    assert decisions(url) == [*before, (first, False, "unsure")]
    for _ in range(30):  # as a keyboard does it
        page.keyboard.down("d")
        page.wait_for_timeout(33)
    page.keyboard.up("d")
    third = shown(page, other_than=second)
    assert decisions(url) == [*before, (first, False, "unsure"), (second, True, "unsure")]
    press_twice(page, "u")
    assert shown(page, other_than=third) == second
    assert decisions(url) == [*before, (first, False, "unsure")]
    page.keyboard.press("u")
    assert shown(page, other_than=second) == first
    assert decisions(url) == before


def keep(page: Page, label: str) -> None:
    """Keep what a button does, as Streamlit itself does for a moment after another took its place."""
    page.evaluate(
        """label => {
            const buttons = [...document.querySelectorAll("[data-testid=stButton] button")];
            const button = buttons.find(button => button.innerText.startsWith(label));
            window.late = button[Object.keys(button).find(key => key.startsWith("__reactProps"))].onClick;
        }""",
        label,
    )


def test_a_press_of_a_button_that_was_there_before_does_nothing(page: Page, url: str) -> None:
    before = decisions(url)
    open_tab(page, "Review")
    first = shown(page)
    keep(page, "Defective")
    second = shown_after_key(page, "s", other_than=first)
    page.evaluate("late()")
    third = shown_after_key(page, "g", other_than=second)
    assert decisions(url) == [*before, (second, False, "unsure")]
    keep(page, "Undo")
    fourth = shown_after_key(page, "d", other_than=third)
    page.evaluate("late()")
    assert shown_after_key(page, "u", other_than=fourth) == third
    assert decisions(url) == [*before, (second, False, "unsure")]
    page.keyboard.press("u")
    wait_for(page, lambda: decisions(url) == before)


def test_a_decision_that_the_record_does_not_take_is_told(
    browser: Browser, model: Path, inspector: Inspector, test_images: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'line.db'}"
    fill(url, model, inspector, test_images)
    with connect(url).begin() as connection:
        connection.execute(sa.text("create trigger full before insert on reviews begin select raise(abort, ''); end"))
    with served(model, "--record", url) as address:
        page = open_page(browser, address)
        open_tab(page, "Review")
        shown(page)
        page.keyboard.press("d")
        expect(page.get_by_text("The record did not take that")).to_be_visible()
        assert decisions(url) == []
        page.close()


def test_a_photograph_lies_in_the_review_as_its_heat_map_does_whatever_way_up_the_camera_was() -> None:
    turned, exif = BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (40, 20)).save(turned, "JPEG", exif=exif)
    drawn = picture(turned.getvalue())
    assert isinstance(drawn, bytes)
    with Image.open(BytesIO(drawn)) as image:
        assert image.size == (40, 20)
    assert picture(b"no image").startswith("cannot be read as an image")


def test_what_is_taken_back_while_the_record_is_away_is_the_last_decision_all_the_same(
    browser: Browser, model: Path, inspector: Inspector, test_images: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    url = f"sqlite:///{tmp_path / 'there' / 'line.db'}"
    fill(url, model, inspector, test_images)
    with served(model, "--record", url) as address:
        page = open_page(browser, address)
        open_tab(page, "Review")
        first = shown(page)
        second = shown_after_key(page, "g", other_than=first)
        shown_after_key(page, "d", other_than=second)
        (tmp_path / "there").rename(tmp_path / "away")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_text("The record cannot be used: ")).to_be_visible()
        (tmp_path / "away").rename(tmp_path / "there")
        open_tab(page, "Models")  # the tabs are still there
        open_tab(page, "Review")
        shown(page)
        page.get_by_role("button", name="Undo").click()
        wait_for(page, lambda: second not in {row[0] for row in decisions(url)})
        assert [row[:2] for row in decisions(url)] == [(first, False)]
        page.close()


def test_passed_castings_can_be_drawn_and_the_rates_follow(page: Page, url: str) -> None:
    before = decisions(url)
    open_tab(page, "Review")
    old = shown(page)
    page.get_by_role("radio", name="Passed").click()
    expect(page.get_by_role("button", name="Good, confirm")).to_be_visible()
    expect(page.get_by_text("decide on some of each verdict")).to_have_count(2)
    for stratum in ("Passed", "Rejected", "Unsure"):
        page.get_by_role("radio", name=stratum).click()
        old = shown_after_key(page, "d", other_than=shown(page, other_than=old))
    assert [row[1:] for row in decisions(url)[len(before) :]] == [
        (True, "passed"),
        (True, "rejected"),
        (True, "unsure"),
    ]
    expect(page.get_by_test_id("stMetric").filter(has_text="escape rate")).to_contain_text("%")
    newcomer = UUID(int=0).hex
    with connect(url).begin() as connection:
        latest = sa.select(verdicts).where(verdicts.c.verdict == "good").order_by(verdicts.c.time.desc()).limit(1)
        row = connection.execute(latest).mappings().one()
        connection.execute(verdicts.insert(), {**row, "id": newcomer, "time": time.time()})
    old = shown_after_key(page, "s", other_than=old)
    expect(page.get_by_text("Decisions that do not count yet: 1.")).to_be_visible()
    with connect(url).begin() as connection:
        connection.execute(verdicts.delete().where(verdicts.c.id == newcomer))
    for decided, *_ in reversed(decisions(url)[len(before) :]):
        page.keyboard.press("u")
        # The record has it before the page does, where a key that comes too soon is of the last casting, or of nothing.
        assert shown(page, other_than=old) == decided
        old = decided
    assert decisions(url) == before


def test_models_are_shown_with_their_cards(page: Page, castings: Path) -> None:
    open_tab(page, "Models")
    settle(page)
    expect(page.get_by_text("The user's own images.")).to_be_visible()
    expect(page.get_by_text(f"Trained on images of {castings.name} (data=folder).")).to_be_visible()


def test_what_the_page_judges_is_recorded_once(
    browser: Browser, model: Path, inspector: Inspector, test_images: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'page.db'}"
    with served(model, "--record", url, "--keep", "all") as address:
        page = open_page(browser, address)
        expect(page.get_by_text("No image at hand?")).to_be_visible()
        upload(page, test_images[0])
        expect(page.get_by_test_id("verdict")).to_be_visible()
        page.get_by_text("No image at hand?").click()
        page.get_by_role("button", name="good", exact=True).first.click()
        expect(page.get_by_text("drawn, good")).to_be_visible()
        upload(page, test_images[1])
        expect(page.get_by_role("button", name="Download verdicts (CSV)")).to_be_visible()
        page.close()
    engine = connect(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(verdicts).order_by(verdicts.c.time)).all()
        kept = set(connection.execute(sa.select(images.c.content)).scalars())
    engine.dispose()
    assert [(row.source, row.name) for row in rows] == [("page", file.name) for file in test_images[:2]]
    assert rows[0].p_defect == pytest.approx(inspector.inspect(test_images[0]).p_defect, abs=1e-6)
    assert kept == {file.read_bytes() for file in test_images[:2]}


def test_what_is_judged_while_the_page_is_drawn_anew_is_recorded_once(
    inspector: Inspector, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "session_state", {})
    inspect_many, begun = Inspector.inspect_many, Event()

    def slow(inspector: Inspector, sources: Iterable[bytes]) -> Iterator[Verdict | UserError]:
        for result in inspect_many(inspector, sources):
            begun.set()
            time.sleep(0.1)
            yield result

    monkeypatch.setattr(Inspector, "inspect_many", slow)
    castings = [Casting(file.name, file.read_bytes(), file.name) for file in test_images[:4]]
    url = f"sqlite:///{tmp_path / 'page.db'}"
    with Recorder(url, "page", inspector, spool=tmp_path) as recorder, ThreadPoolExecutor() as pool:
        station = Station(inspector, None, recorder)
        first = pool.submit(judge, station, castings[:3])
        assert begun.wait(PATIENCE)
        assert judge(station, castings)[:3] == first.result()
    assert count(url) == 4


def test_a_new_model_judges_what_is_listed_and_does_not_record_it_again(
    inspector: Inspector, exported: Path, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "session_state", {})
    castings = [Casting(file.name, file.read_bytes(), file.name) for file in test_images[:3]]
    url = f"sqlite:///{tmp_path / 'page.db'}"
    for model, listed in ((inspector, castings[:2]), (Inspector(exported), castings)):
        with Recorder(url, "page", model, spool=tmp_path) as recorder:
            results = judge(Station(model, None, recorder), listed)
        assert [result.threshold for result in results] == [model.threshold] * len(listed)
    assert count(url) == 3


def test_without_its_record_the_page_still_judges_and_says_what_is_away(
    browser: Browser, model: Path, test_images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with served(model, "--record", f"sqlite:///{tmp_path}/away/line.db") as address:
        page = open_page(browser, address)
        expect(page.get_by_text("No image at hand?")).to_be_visible()
        upload(page, test_images[0])
        expect(page.get_by_test_id("verdict")).to_be_visible()
        for tab in ("Today", "Review", "Models"):
            open_tab(page, tab)
            expect(page.get_by_text("The record cannot be used: ")).to_be_visible()
        (tmp_path / "away").mkdir()
        (tmp_path / "away" / "line.db").write_text("of something else\n" * 100)
        open_tab(page, "Today")
        expect(page.get_by_text("is there and no database of SQLite")).to_be_visible()
        page.close()


def test_a_model_that_is_away_for_a_while_is_one_sentence_on_the_page(
    browser: Browser, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live.onnx").write_bytes(model.read_bytes())
    with served(tmp_path / "live.onnx") as address:
        page = open_page(browser, address)
        expect(page.get_by_text("No image at hand?")).to_be_visible()
        for said, content in (("not a model", b"half copied"), ("No such file", None), ("No image at hand?", model)):
            (tmp_path / "live.onnx").unlink(missing_ok=True)
            if content:
                (tmp_path / "live.onnx").write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            page.reload()
            expect(page.get_by_text(said)).to_be_visible()
        page.close()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"# [auth]", "describe a login under [auth]"),
        (b"[authors]", "describe a login under [auth]"),
        (b"\xff\xfe[auth]", "secrets.toml: cannot be read as TOML"),
        (b"auth = 'x'", "[auth] lacks redirect_uri, cookie_secret, client_id, client_secret, server_metadata_url; a"),
        (b"[auth]\nredirect_uri = 'x'\ncookie_secret = 'y'\n[auth.google]", "[auth] lacks client_id, client_secret"),
        (b"[auth]\n" + b"".join(b"%s = 'x'\n" % key.encode() for key in ASKED), None),
    ],
)
def test_a_login_counts_only_where_streamlit_finds_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_bytes(written)
    started: list[str] = []

    def execute(program: str, _: list[str]) -> None:
        started.append(program)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # as the server does: others are started from here

    monkeypatch.setattr("os.execv", execute)
    with nullcontext() if message is None else pytest.raises(UserError, match=re.escape(message)):
        launch(model, "0.0.0.0", 0)
    assert bool(started) is (message is None)


@pytest.mark.parametrize(("asked", "labels"), [(LOGIN_ASKED, ["Log in"]), ("", [])])
def test_a_page_goes_on_to_ask_who_comes_when_the_login_is_taken_away(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, labels: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(PAGE), str(model), "none", "0", asked])
    page = AppTest.from_file(str(PAGE)).run(timeout=PATIENCE)
    assert [button.label for button in page.button if button.label == "Log in"] == labels
    assert bool(page.title) is (not asked)


def test_what_is_no_model_is_one_line_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("it starts"))
    (tmp_path / "some.png").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"some\.png: not a model that `castnet export` wrote"):
        launch(tmp_path / "some.png", "127.0.0.1", 0)
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        launch(tmp_path / "none.onnx", "127.0.0.1", 0)


def test_a_page_for_other_machines_starts_if_one_insists_and_its_address_can_be_had(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def execute(_: str, words: list[str]) -> None:
        started.append(words)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    monkeypatch.setattr("os.execv", execute)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert castnet_here("app", model, "--port", taken.getsockname()[1]) == 2
    assert "cannot be listened on" in capsys.readouterr().err
    assert not started
    assert castnet_here("app", model, "--host", "0.0.0.0", "--port", free_port(), "--open") == 0
    told = ("--server.address=0.0.0.0", "--server.maxUploadSize=20", "--browser.gatherUsageStats=false")
    assert {*told, "--client.showErrorDetails=none", "--client.toolbarMode=viewer"} <= set(started[0])
