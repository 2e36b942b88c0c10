"""What a record costs, and how soon it answers.

    python benchmarks/record.py MODEL IMAGES                 # SQLite in a temporary folder
    python benchmarks/record.py MODEL IMAGES --url postgresql+psycopg://castnet@/empty --verdicts 1000000

MODEL is what `castnet export` wrote, IMAGES a folder of images. With and without recording take turns in one run. The
last part clicks through the page in chromium and is left out where there is none.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count as count_from
from pathlib import Path
from statistics import median

import sqlalchemy as sa
from playwright.sync_api import Page, expect, sync_playwright

from castnet import entry
from castnet.imaging.listing import list_images
from castnet.line.inspector import Inspector, Verdict
from castnet.line.page.review_tab import GLANCE
from castnet.line.record import engine_for, images, make_tables, open_record, reading, reviews, verdicts
from castnet.line.recorder import Recorder
from castnet.line.review import count_strata, next_to_review
from castnet.line.today import count, count_by_hour, drift, given, hours_of, last_rejected, last_verdicts, read_cards

ROUNDS = 5
CLICKS = 10
DECIDED = 10, 1000  # castings that people decided on, in the order in which the page asks
TABS = {"Today": "heat map of", "Models": None, "Review": "the casting"}  # and a picture that each ends with


def seconds(function: Callable[[], object]) -> float:
    return spent(function)[0]


def spent(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds that pass, and those of the CPU: these tell something also where other work keeps a machine busy."""
    start, worked = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - worked


def varied(verdict: Verdict, index: int) -> Verdict:
    """One in twelve is rejected and one in fifty unsure."""
    if index % 50 == 0:
        return replace(verdict, verdict="unsure", reason="unfamiliar")
    return replace(verdict, verdict="defective" if index % 12 == 0 else "good", reason=None)


def write(url: str, inspector: Inspector, contents: Sequence[bytes], number: int, keep: str) -> None:
    """Put verdicts on record as fast as they are taken, and wait until the database has all."""
    verdict = inspector.inspect(contents[0])
    make_tables(engine_for(url))  # which are counted in before the first verdict may be there
    with tempfile.TemporaryDirectory() as spool:
        start = time.perf_counter()
        with Recorder(url, "watch", inspector, keep=keep, spool=Path(spool)) as recorder:
            for index in range(number):
                recorder.put(f"camera/{index:07d}.jpeg", contents[index % len(contents)], varied(verdict, index))
            taken = time.perf_counter() - start
            while stored(url) < number:
                time.sleep(2)  # counting takes time, too
            whole = time.perf_counter() - start
    print(f"{number:,} verdicts written: taken in {taken:.1f} s, in the database after {whole:.1f} s")
    print(f"  {number / whole:,.0f} verdicts a second; {size(url) / 1e6:,.0f} MB, {size(url) / number:.0f} bytes each")


def stored(url: str) -> int:
    with open_record(url).connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(verdicts)).scalar_one()


def size(url: str) -> int:
    engine = engine_for(url)
    if engine.dialect.name == "sqlite":
        assert engine.url.database
        return sum(file.stat().st_size for file in Path(engine.url.database).parent.glob("record.db*"))
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())


def cost(url: str, inspector: Inspector, contents: Sequence[bytes], number: int, keep: str) -> None:
    """Verdicts a second, with and without recording in turns, until the database has the last one.

    Every image is another one, by what stands behind its end, so that each is kept.
    """
    judged = count_from(0)

    def judge(recorder: Recorder | None) -> None:
        for index in range(number):
            content = contents[index % len(contents)] + b"%d" % next(judged)
            verdict = inspector.inspect(content)
            if recorder:
                recorder.put("camera/image.jpeg", content, verdict)
        if recorder:
            recorder.close()

    judge(None)
    times = []
    with tempfile.TemporaryDirectory() as spool:
        for _ in range(ROUNDS):
            plain = spent(partial(judge, None))
            recorder = Recorder(url, "watch", inspector, keep=keep, spool=Path(spool))
            times.append((*plain, *spent(partial(judge, recorder))))
    taken, worked, taken_recorded, worked_recorded = (median(side) / number for side in zip(*times, strict=True))
    print(f"{number:,} verdicts, --keep {keep} (median of {ROUNDS})")
    print(
        f"  without {1 / taken:,.0f}, with recording {1 / taken_recorded:,.0f} a second: "
        f"{1 - taken / taken_recorded:.1%} less"
    )
    print(
        f"  CPU: without {1e3 * worked:.2f}, with recording {1e3 * worked_recorded:.2f} ms a verdict: "
        f"{worked_recorded / worked - 1:.1%} more"
    )


def queries(url: str) -> None:
    """What the tabs ask of the record."""
    edges = hours_of(date.today())
    start, end = float(edges[0]), float(edges[-1])
    with open_record(url).connect() as connection:

        def today() -> None:
            count_by_hour(connection, edges)
            count(connection, start - 6 * 86400, start)
            list(drift(last_verdicts(connection, start, end), read_cards(connection)))
            last_rejected(connection, start, end, 6)

        def review() -> None:
            count_strata(connection, start, end)
            for stratum in ("unsure", "rejected", "passed"):
                next_to_review(connection, stratum, start, end)

        today()
        counted = count_by_hour(connection, edges).sum()
        for name, ask in (("Today", today), ("Review", review)):
            print(f"{name}, {counted:,} verdicts of one day: {median(seconds(ask) for _ in range(ROUNDS)):.2f} s")
        passed = sa.select(verdicts.c.id).where(given(start, end), verdicts.c.verdict == "good").order_by(verdicts.c.id)
        kept = sa.select(verdicts.c.image, sa.literal(b""), sa.literal(0), sa.literal(start)).distinct()
        connection.execute(images.insert().from_select(["image", "content", "bytes", "time"], kept))
        for decided in DECIDED:
            said = passed.add_columns(sa.literal("passed"), sa.false(), sa.literal(time.time())).limit(decided)
            connection.execute(reviews.delete())
            connection.execute(reviews.insert().from_select(["verdict_id", "drawn_as", "is_defect", "time"], said))
            print(f"Review, {decided:,} of them decided: {median(seconds(review) for _ in range(ROUNDS)):.2f} s")


def clicks(inspector: Inspector, model: Path, contents: Sequence[bytes], number: int) -> None:
    """From a click on the page to what it shows, with 10,000 verdicts on record."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium here: the page is not clicked")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, ExitStack() as stack:
        url = f"sqlite:///{folder}/record.db"
        write(url, inspector, contents, number, "all")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "castnet.cli",
            "app",
            str(model.absolute()),
            "--record",
            url,
            "--port",
            str(port),
        ]
        server = stack.enter_context(subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)  # also where a click does not show what it should
        assert server.stdout
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        assert found
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for width in (1440, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto(found[0])
            page.get_by_role("heading", name="Inspect castings").wait_for()
            taken: dict[str, list[float]] = {tab: [] for tab in TABS}
            for _ in range(CLICKS):
                for tab, shown in TABS.items():
                    taken[tab].append(seconds(partial(click, page, tab, shown)))
            for tab, times in taken.items():
                print(f"{width} px, click on {tab}: {median(times):.2f} s, at most {max(times):.2f} s")
            times = []
            for _ in range(CLICKS):
                page.wait_for_timeout(2000 * GLANCE)  # what is pressed sooner does not count
                times.append(seconds(partial(decide, page)))
            print(f"{width} px, a decision to the next casting: {median(times):.2f} s, at most {max(times):.2f} s")
            page.close()
        browser.close()


def click(page: Page, tab: str, shown: str | None) -> None:
    """Open a tab and wait for its last picture or, where it has none, for its end."""
    page.get_by_role("link", name=tab, exact=True).click()
    page.get_by_role("heading", name=tab, exact=True, level=1).wait_for()
    if shown:
        page.get_by_alt_text(shown).last.wait_for()
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def decide(page: Page) -> None:
    judged = page.get_by_test_id("judged")
    before = judged.get_attribute("data-id") or ""
    page.keyboard.press("g")
    expect(judged).not_to_have_attribute("data-id", before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--url", help="of an empty database (default: SQLite in a temporary folder)")
    parser.add_argument("--verdicts", type=int, default=1_000_000)
    parser.add_argument("--judged", type=int, default=2000, help="verdicts in a round with or without recording")
    parser.add_argument("--clicked", type=int, default=10_000, help="verdicts on record when the page is clicked")
    args = parser.parse_args()
    contents = [file.read_bytes() for file in list_images(args.images).images[:500]]
    if not contents:
        parser.error(f"{args.images}: no images there")
    inspector = Inspector(args.model)
    if args.url:  # which is asked for last
        with reading(engine := engine_for(args.url)):
            make_tables(engine)
    print(f"{os.cpu_count()} CPUs, {len(contents)} images of {args.images.name}")
    with tempfile.TemporaryDirectory() as folder:
        for keep in ("none", "all"):
            cost(f"sqlite:///{folder}/{keep}.db", inspector, contents, args.judged, keep)
        url = args.url or f"sqlite:///{folder}/record.db"
        write(url, inspector, contents, args.verdicts, "none")
        queries(url)
    clicks(inspector, args.model, contents, args.clicked)


if __name__ == "__main__":
    entry.guard(main)
