"""The fault table: what becomes of castnet when something goes wrong, each fault made for real and many times.

    python benchmarks/faults.py                          the whole table
    python benchmarks/faults.py --scale 0.01             a hundredth of the tries
    python benchmarks/faults.py --only fuzz --only disk  rows whose names hold one of these words

Exit code 1 says that something was lost, let through, shown as a traceback, or not survived.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import fault_folder  # noqa: F401 (fills ROWS)
import fault_line  # noqa: F401
import fault_model  # noqa: F401
import fault_stop  # noqa: F401
import fault_train  # noqa: F401
from fault_table import ROWS, Ground, Skip, Tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tries (default: all)")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="rows whose name holds it")
    parser.add_argument("--work", type=Path, help="existing folder to work in (default: a temporary one)")
    args = parser.parse_args()
    if unknown := [word for word in args.only if not any(word in name for name in ROWS)]:
        parser.error(f"--only {unknown[0]}: in the name of no row; they are {', '.join(ROWS)}")
    chosen = {name: row for name, row in ROWS.items() if not args.only or any(word in name for word in args.only)}
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults-", dir=args.work) as work:
        ground = Ground(Path(work), args.scale)
        print("| fault | tries | survived | lost | let through | tracebacks |\n| --- | --- | --- | --- | --- | --- |")
        for name, row in chosen.items():
            tally, begin = Tally(), time.perf_counter()
            try:
                row(ground, tally)
            except Skip as reason:
                print(f"| {name} | skipped: {reason} | | | | |", flush=True)
                continue
            counts = (tally.tries, tally.survived, tally.lost, tally.let_through, tally.tracebacks)
            print(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |", flush=True)
            print(f"{name}: {time.perf_counter() - begin:.0f} s", *tally.wrongs[:20], sep="\n  ", file=sys.stderr)
            failed |= tally.survived < tally.tries
    sys.exit(failed)


if __name__ == "__main__":
    main()
