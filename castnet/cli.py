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

    found = audit(args.root, args.out, args.same)
    print(f"{found.describe()}\nreport: {args.out / 'audit.html'}")
    return 1 if found.disjoint is False else 0


def _resplit(args: argparse.Namespace) -> int:
    from castnet.data.resplit import resplit

    resplit(args.groups, args.out, args.seed)
    return 0


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

    audit = commands.add_parser(
        "audit",
        help="find copies on both sides of a split, doubtful labels and broken files",
        epilog="Exit code 1 says that train and test are not disjoint.",
    )
    audit.add_argument("root", type=Path, help="folder with class folders, or with train/ and test/")
    audit.add_argument("-o", "--out", type=Path, default=Path("audit"), help="folder for the report (default: audit)")
    audit.add_argument("--same", type=Path, help="table file,same_as of images that a person saw to show one part")
    audit.set_defaults(run=_audit)

    resplit = commands.add_parser("resplit", help="split audited images anew, no group on two sides")
    resplit.add_argument("groups", type=Path, help="the groups.csv of an audit")
    resplit.add_argument("out", type=Path, help="table to write, for data.assignment and data.groups")
    resplit.add_argument("--seed", type=int, default=0, help="the same seed makes the same split")
    resplit.set_defaults(run=_resplit)
    return main


def main() -> None:
    args = parser().parse_args()
    try:
        sys.exit(args.run(args))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    main()
