"""Rows of the fault table on the way from a file to a verdict; `benchmarks/faults.py` runs them."""

import csv
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
from fault_table import ROOT, TIMEOUT, VERDICTS, Ground, Ran, Skip, Tally, castnet, row, run, start
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import decode

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


def samples() -> dict[str, list[bytes]]:
    """Small images of every accepted format, in several modes, for others to be made from."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found: dict[str, list[bytes]] = {}
    for kind in FORMATS:
        for mode in ("L", "RGB", "1", "P", "CMYK"):
            buffer = BytesIO()
            try:
                Image.fromarray(pixels).convert(mode).save(buffer, kind)
            except OSError:  # the format knows no such mode
                continue
            found.setdefault(kind, []).append(buffer.getvalue())
    return found


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file after a few bytes were flipped, cut off, repeated or moved."""
    torn = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, how = chance.randrange(len(torn)), chance.randrange(5)
        if how == 0:
            torn[place] = chance.randrange(256)
        elif how == 1:
            torn[place] ^= 1 << chance.randrange(8)
        elif how == 2:
            del torn[max(place, 1) :]
        elif how == 3:
            torn[place:place] = torn[place : place + chance.randrange(1, 64)]
        else:
            torn[place : place + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
    return bytes(torn)


@row("fuzzed images of every accepted format, decoded")
def fuzzed_images(ground: Ground, tally: Tally) -> None:
    chance, kinds = random.Random(0), samples()
    assert set(kinds) == set(FORMATS)
    for _ in range(ground.count(100_000)):
        kind = chance.choice(FORMATS)
        content = damaged(chance.choice(kinds[kind]), chance)
        try:
            image = decode(content)
        except UserError:
            tally.add(kind)
        except BaseException as error:
            tally.add(f"{kind} {content[:200].hex()}: {error!r}", traceback=True)
        else:
            whole = image.dtype == np.uint8 and image.ndim == 2 and image.size > 0
            tally.add(f"{kind} {content[:200].hex()}", let_through=not whole)


def _obeying_modes() -> tuple[str, ...]:
    """What a command begins with so that root, too, cannot read a file whose mode forbids it."""
    if os.getuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        raise Skip("root reads everything, and there is no setpriv(1) to take that right from it")
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")


def _casting(ground: Ground) -> Path:
    return sorted((ground.castings / "test").rglob("*.jpeg"))[0]


@row("folders and files that cannot be read")
def unreadable(ground: Ground, tally: Tally) -> None:
    model, casting = ground.model, _casting(ground)
    room, audits = ground.room("unreadable"), ground.room("audits")

    def folder(name: str) -> Path:
        """A folder of two classes, all readable, with `sub/` for what is not."""
        root = room / name
        for part in ("train/def", "train/ok", "test/def", "test/ok", "test/ok/sub"):
            (root / part).mkdir(parents=True)
            shutil.copy(casting, root / part / f"{part.replace('/', '-')}.jpeg")
        return root / "test/ok/sub"

    folder("a folder").chmod(0)
    folder("a folder that lists").chmod(0o444)
    (folder("a file") / "test-ok-sub.jpeg").chmod(0)
    (folder("a link to nothing") / "gone.jpeg").symlink_to("nowhere")
    (folder("a link to no folder") / "gone").symlink_to("nowhere")
    (folder("a link to itself") / "round.png").symlink_to("round.png")
    os.mkfifo(folder("a pipe") / "pipe.tif")
    (folder("a device") / "zero.bmp").symlink_to("/dev/zero")
    (folder("a link to a folder") / "link").symlink_to(room / "a folder/test/ok/sub")
    (folder("a torn image") / "torn.jpeg").write_bytes(casting.read_bytes()[:1000])
    (folder("an empty image") / "empty.png").touch()
    for root in sorted(room.iterdir()):
        for name, command in {
            "predict": castnet("predict", model, root),
            "predict --csv": castnet("predict", model, root / "test", root / "train", "--csv"),
            "predict PATTERN": castnet("predict", model, f"{root}/**/*.*", f"{root}/test/*/*/*", f"{root}/*/*/*.*"),
            "audit": castnet("audit", root, "-o", audits / root.name),
        }.items():
            ran = run(*_obeying_modes(), *command)
            wrong = "" if ran.code == 2 else f"exit code {ran.code}, {ran.out[-300:]!r} {ran.err[-300:]!r}"
            named = any(line.count("cannot be read") for line in (ran.out + ran.err).splitlines())
            tally.add(
                f"{root.name}, {name}",
                let_through=int(ran.code in VERDICTS),
                lost=int(not named),
                traceback="Traceback" in ran.err,
                wrong=wrong,
            )


@row("links that lead round, or to one folder twice")
def links(ground: Ground, tally: Tally) -> None:
    model, casting = ground.model, _casting(ground)
    for name, made in {
        "up": [".."],
        "round": ["../b", "../a"],
        "twice": ["../a"] * 3,
        "out": [str(casting.parent)],
    }.items():
        room = ground.room(f"links-{name}")
        for folder in ("a", "b"):
            (room / folder).mkdir()
            shutil.copy(casting, room / folder)
        for index, target in enumerate(made):
            (room / "b" / f"link{index}").symlink_to(target)
        expected = 2 + (len(list(casting.parent.iterdir())) if name == "out" else 0)
        ran = run(*castnet("predict", model, room, "--json"))
        wrong = "" if ran.code in VERDICTS else f"exit code {ran.code}"
        tally.add(name, lost=int(len(ran.out.splitlines()) != expected), wrong=wrong)


@row("names that hold formulas, line breaks, terminal codes or no text, printed")
def names(ground: Ground, tally: Tally) -> None:
    model, casting, room = ground.model, _casting(ground), ground.room("names")
    for name in (
        b"=cmd|' C'!A1.jpeg", b"+1.jpeg", b"-1.jpeg", b"@SUM(A1).jpeg", b"a;=1.jpeg", b"a\nb.jpeg", b"a\r\nb.jpeg",
        b"a\tb.jpeg", b"\x1b[31mred.jpeg", b"\x07\x08.jpeg", b"\xff\xfe.jpeg", "\u202egepj.jpeg".encode(),
        "Gußteil.jpeg".encode(), "鋳物.jpeg".encode(), b'",".jpeg', b"[bold]x[bold].jpeg", b" .jpeg",
    ):  # fmt: skip
        shutil.copy(os.fsencode(casting), os.fsencode(room) + b"/" + name)
    files = sorted(path.name for path in room.iterdir())
    for encoding in ("utf-8", "ascii", "latin-1"):
        for form in ("--json", "--csv", None):
            command = castnet("predict", model, "*.jpeg", *([form] if form else []))
            environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
            process = subprocess.run(
                list(map(str, command)), cwd=room, env=environment, capture_output=True, timeout=TIMEOUT
            )
            out, err = process.stdout.decode(encoding), process.stderr.decode(encoding)
            if form == "--csv":
                rows = [row[0] for row in csv.reader(StringIO(out))][1:]
                safe = not any(cell.lstrip()[:1] in tuple("=+-@") or ";=" in cell for cell in rows)
            elif form == "--json":
                rows = [json.loads(line)["file"] for line in out.splitlines()]
                safe = rows == files
            else:
                rows, safe = out.splitlines()[1:-1], all(line.isprintable() for line in out.splitlines())
            tally.add(
                f"{encoding} {form}",
                lost=abs(len(files) - len(rows)),
                let_through=int(not safe),
                traceback="Traceback" in err,
                wrong="" if process.returncode in VERDICTS else f"exit code {process.returncode}, {err!r}",
            )


@row("output that cannot be written")
def output(ground: Ground, tally: Tally) -> None:
    model, folder = ground.model, ground.castings / "test"
    for form in ((), ("--json",), ("--csv",)):
        for redirection in (">/dev/full", ">/dev/full 2>/dev/full", "2>/dev/full >/dev/full </dev/null"):
            command = (*castnet("predict", model, folder), *form)
            ran = run("sh", "-c", f'"$@" {redirection}', "sh", *command)
            code_only = "2>" in redirection
            tally.refused(f"{form} {redirection}", ran, says="" if code_only else "No space left")
    for what in ("--json", "--csv"):
        process = start(*castnet("predict", model, *[folder] * 20, what))
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        tally.refused(f"a reader that goes, {what}", Ran(process.wait(60), "", process.stderr.read()))


@row("a full disk under what the line writes")
def full_disk(ground: Ground, tally: Tally) -> None:
    model = ground.model
    with ground.small_disk("full-disk", "256k") as disk:
        table = castnet("predict", model, *[ground.castings] * 40, "--csv")
        tally.refused("predict --csv", run("sh", "-c", f'"$@" > {disk}/out.csv', "sh", *table), says="No space left")
        (disk / "out.csv").unlink()
        tally.refused(
            "export", run(*castnet("export", ground.trained, "-o", disk / "model.onnx")), says="No space left"
        )
        tally.add("export leaves nothing", lost=len(list(disk.iterdir())))
        here = {**os.environ, "TMPDIR": str(disk), "PYTHONPATH": str(ROOT)}
        audit = castnet("audit", ground.castings, "-o", ground.folder / "audit-tmp")
        tally.refused("audit, its temporary file", run(*audit, env=here), says="No space left")
        tally.refused("audit", run(*castnet("audit", ground.castings, "-o", disk / "audit")), says="No space left")
        tally.add("audit leaves nothing", lost=len(list((disk / "audit").iterdir())))
        shutil.rmtree(disk / "audit")
        image = _casting(ground).read_bytes()
        for index in range(256 * 1024 // len(image) + 1):
            try:
                (disk / f"{index}.jpeg").write_bytes(image)
            except OSError:
                break
        tally.refused("--watch", run(*castnet("predict", model, "--watch", disk)), says="No space left")


@row("a full disk under --record, and room again")
def full_record(ground: Ground, tally: Tally) -> None:
    castings = sorted(ground.castings.rglob("*.jpeg"))
    for keep in ("none", "all"):
        with ground.small_disk(f"full-record-{keep}", "256k") as disk:
            # Each ten times: their verdicts fill the disk, too.
            record = ("--record", f"sqlite:///{disk}/record.db", "--keep", keep, "--json")
            ran = run(*castnet("predict", ground.model, *[ground.castings] * 10, *record), cwd=disk)
            judged, told = len(ran.out.splitlines()), ran.err
            found = re.search(r"([\d,]+) verdicts and ([\d,]+) images found no room", told)
            lost, unkept = (int(count.replace(",", "")) for count in found.groups()) if found else (0, 0)
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            after = run(*castnet("predict", ground.model, castings[0], *record), cwd=disk)
            with closing(sqlite3.connect(disk / "record.db")) as database:
                (stored,) = database.execute("SELECT count(*) FROM verdicts").fetchone()
            wrong = "" if judged == 10 * len(castings) else f"{judged} verdicts of {10 * len(castings)}"
            wrong += "" if ran.code in VERDICTS and after.code in VERDICTS else f" exit codes {ran.code}, {after.code}"
            wrong += "" if "takes no more (No space left on device)" in told and unkept + lost else f" says {told!r}"
            tally.add(
                f"--keep {keep}", lost=abs(judged + 1 - lost - stored), traceback="Traceback" in told, wrong=wrong
            )
