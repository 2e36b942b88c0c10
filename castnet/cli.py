"""The `castnet` command."""

import argparse
import sys
from pathlib import Path

from castnet.errors import UserError, fail


def _generate(args: argparse.Namespace) -> int:
    from castnet.data.generate import generate

    generate(args.root, n=args.n, seed=args.seed, resume=args.resume)
    return 0


def _audit(args: argparse.Namespace) -> int:
    from castnet.data.audit import audit

    found = audit(args.root, args.out)
    print(found.describe())
    return 0 if found.disjoint else 1


def parser() -> argparse.ArgumentParser:
    """The command line; every sub-command imports only what it needs."""
    main = argparse.ArgumentParser(prog="castnet", description="Visual inspection of castings.")
    commands = main.add_subparsers(required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="draw castings as a folder of class folders")
    generate.add_argument("root", type=Path, help="folder to make")
    generate.add_argument("--n", type=int, default=3000, help="number of castings (default: %(default)s)")
    generate.add_argument("--seed", type=int, default=0, help="the same seed draws the same castings")
    generate.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    generate.set_defaults(run=_generate)

    audit = commands.add_parser("audit", help="find duplicates, parts on both sides of a split, and broken files")
    audit.add_argument("root", type=Path, help="folder with class folders, or with train/ and test/")
    audit.add_argument("-o", "--out", type=Path, default=Path("audit"), help="folder for the report (default: audit)")
    audit.set_defaults(run=_audit)
    return main


def main() -> None:
    args = parser().parse_args()
    try:
        sys.exit(args.run(args))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    main()
