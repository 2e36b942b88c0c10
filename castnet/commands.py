"""What each command of `castnet` takes and does."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from castnet.errors import UserError, extra, printable

if TYPE_CHECKING:
    from castnet.line.predict import Record


def _name(text: str) -> str:
    """A name that is not empty: as of a shell's variable that is not set, it would be the current folder."""
    if not text:
        raise UserError("the name of a file or folder is empty; no name may be empty")
    return text


def _path(text: str) -> Path:
    return Path(_name(text))


def _generate(args: argparse.Namespace) -> int:
    from castnet.drawn.folder import generate

    generate(args.root, n=args.n, seed=args.seed, resume=args.resume, pairs=args.pairs)
    return 0


def _audit(args: argparse.Namespace) -> int:
    with extra("audit"):
        from castnet.audit.audit import audit

    found = audit(args.root, args.out, args.same)
    print(f"{found.describe()}\nreport: {args.out / 'audit.html'}")
    for file, reason in found.unreadable.items():
        print(f"{printable(file)}: {printable(reason)}")
    return 2 if found.unreadable else 1 if found.disjoint is False else 0


def _resplit(args: argparse.Namespace) -> int:
    from castnet.audit.resplit import resplit

    resplit(args.groups, args.out, args.seed)
    return 0


def _export(args: argparse.Namespace) -> int:
    with extra("export"):
        from castnet.export.export import export

    print(export(args.source, args.out, args.unfinished))
    return 0


def _predict(args: argparse.Namespace) -> int:
    if bool(args.paths) == bool(args.watch):
        raise UserError("predict: name images, folders or patterns, or else a folder with --watch")
    if args.watch:
        if args.on:
            raise UserError("predict: --watch judges on this machine alone; leave --on out")
        from castnet.line.watch import watch

        return watch(args.model, Path(args.watch), args.form, _record(args))
    from castnet.line.predict import predict

    return predict(args.model, args.paths, args.form, _record(args), args.on)


def _compare(args: argparse.Namespace) -> int:
    with extra("compare"):
        from castnet.line.compare import compare

    return compare(args.old, args.new, args.where, args.out, args.groups, args.max_new_escapes, args.json)


def _record(args: argparse.Namespace) -> "Record | None":
    """What makes the recorder that was asked for, if one was."""
    if not _is_recorded(args):
        return None
    with extra("record"):
        from castnet.line.recorder import Recorder

    return partial(Recorder, args.record, keep=args.keep, keep_bytes=args.keep_bytes)


def _is_recorded(args: argparse.Namespace) -> bool:
    """Whether verdicts are to be recorded.

    Raises:
        UserError: the options on that contradict each other.
    """
    if args.record is None and args.keep != "none":
        raise UserError(f"--keep {args.keep}: images are kept beside verdicts; say where with --record URL")
    if args.keep_bytes < 0:
        raise UserError(f"--keep-bytes {args.keep_bytes}: expected 0 or more")
    return args.record is not None


def _serve(args: argparse.Namespace) -> int:
    with extra("serve"):
        from castnet.line.serve import serve

    return serve(
        args.model,
        args.host,
        args.port,
        record=_record(args),
        shadow=args.shadow,
        token_file=args.token_file,
        insist=args.open,
    )


def _app(args: argparse.Namespace) -> int:
    with extra("page"):
        import streamlit  # noqa: F401

    from castnet.line.launch import launch

    if args.model is None:
        from castnet.export.last_run import model_of_last_run

        args.model = model_of_last_run()
    if _is_recorded(args):
        with extra("record"):
            from castnet.line.record import engine_for
            from castnet.line.recorder import spool_for

        spool_for(engine_for(args.record).url)  # which the page would only ask for when somebody visits it
    return launch(
        args.model,
        args.host,
        args.port,
        record=args.record,
        keep=args.keep,
        keep_bytes=args.keep_bytes,
        insist=args.open,
    )


def _reviewed(args: argparse.Namespace) -> int:
    with extra("record"):
        from castnet.line.reviewed import write_reviewed
    with extra("audit"):
        from castnet.audit.audit import audit

    # groups.csv: one part's photographs together
    written = write_reviewed(args.url, args.folder, lambda made: audit(made, made, called=args.folder))
    print(written.describe(args.folder))
    return 1 if written.left_out else 0


def _add_record(command: argparse.ArgumentParser) -> None:
    command.add_argument("--record", metavar="URL", help="keep every verdict: sqlite:///FILE or postgresql+psycopg://…")
    command.add_argument(
        "--keep",
        choices=("none", "unsure", "rejected", "all"),
        default="none",
        help="which images it keeps too; rejected: unsure and defective ones (default: %(default)s)",
    )
    command.add_argument(
        "--keep-bytes",
        type=int,
        default=1_000_000_000,
        metavar="N",
        help="bytes of images kept; the oldest go first (default: %(default)s)",
    )


def parser() -> argparse.ArgumentParser:
    """The command line; every sub-command imports only what it needs."""
    main = argparse.ArgumentParser(prog="castnet", description="Visual inspection of castings.")
    commands = main.add_subparsers(required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="draw castings as a folder of class folders")
    generate.add_argument("root", type=_path, help="folder to make")
    generate.add_argument("--n", type=int, default=3000, help="number of parts (default: %(default)s)")
    generate.add_argument("--seed", type=int, default=0, help="the same seed draws the same castings")
    generate.add_argument("--pairs", action="store_true", help="draw every part both good and defective")
    generate.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    generate.set_defaults(run=_generate)

    audit = commands.add_parser(
        "audit",
        help="find copies on both sides of a split, doubtful labels and broken files",
        epilog="Exit code 0: train and test are disjoint, or absent, 1: they are not disjoint, 2: trouble, such as an "
        "image that cannot be read.",
    )
    audit.add_argument("root", type=_path, help="folder with class folders, or with train/ and test/")
    audit.add_argument("-o", "--out", type=_path, default=Path("audit"), help="folder for the report (default: audit)")
    audit.add_argument("--same", type=_path, help="table file,same_as of images that a person saw to show one part")
    audit.set_defaults(run=_audit)

    resplit = commands.add_parser("resplit", help="split audited images anew, no group on two sides")
    resplit.add_argument("groups", type=_path, help="the groups.csv of an audit")
    resplit.add_argument("out", type=_path, help="table to write, for data.assignment and data.groups")
    resplit.add_argument("--seed", type=int, default=0, help="the same seed makes the same split")
    resplit.set_defaults(run=_resplit)

    export = commands.add_parser("export", help="write a trained model as one file for the line")
    export.add_argument("source", type=_path, metavar="RUN_OR_CKPT", help="folder of a training run, or a checkpoint")
    export.add_argument(
        "-o", "--out", type=_path, default=Path("model.onnx"), help="file to write (default: model.onnx)"
    )
    export.add_argument("--unfinished", action="store_true", help="take a checkpoint of a run that did not end")
    export.set_defaults(run=_export)

    predict = commands.add_parser(
        "predict",
        help="judge images",
        epilog="Exit code 0: all good, 1: a defect found, 2: trouble, such as an image that cannot be read, 3: no "
        "defect found, but an image that the model is unsure of.",
    )
    predict.add_argument("model", type=_path, help="what `castnet export` wrote")
    predict.add_argument("paths", nargs="*", type=_name, metavar="PATH", help="images, folders of them, or patterns")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print one JSON object a line")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    predict.add_argument("--on", choices=["ray"], help="judge on the Ray cluster of RAY_ADDRESS, or a local one")
    predict.add_argument("--watch", type=_name, metavar="DIR", help="judge images as they come into a folder")
    _add_record(predict)
    predict.set_defaults(run=_predict, form="table")

    compare = commands.add_parser(
        "compare",
        help="judge the same images by two models and show what differs",
        epilog="Exit code 0: compared, 1: more defects pass than --max-new-escapes allows, 2: trouble, such as an "
        "image that cannot be read.",
    )
    compare.add_argument("old", type=_path, help="what `castnet export` wrote")
    compare.add_argument("new", type=_path, help="another such model")
    compare.add_argument(
        "where", type=_name, metavar="FOLDER|URL", help="class folders of images, or a record that keeps images"
    )
    compare.add_argument(
        "-o", "--out", type=_path, default=Path("compare.html"), help="page to write (default: %(default)s)"
    )
    compare.add_argument("--groups", type=_path, metavar="CSV", help="which images show one part, as an audit tells it")
    compare.add_argument(
        "--max-new-escapes", type=int, metavar="N", help="the most parts with a defect that may pass NEW and not OLD"
    )
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(run=_compare)

    reviewed = commands.add_parser(
        "reviewed",
        help="write what people decided on the page as a folder to train on",
        epilog="Exit code 0: all images decided on were written, 1: some are not on record or broken, 2: trouble, or "
        "none is.",
    )
    reviewed.add_argument("url", metavar="URL", help="the record: sqlite:///FILE or postgresql+psycopg://…")
    reviewed.add_argument("folder", type=_path, help="folder to make: good/, defective/, groups.csv, provenance.csv")
    reviewed.set_defaults(run=_reviewed)

    serve = commands.add_parser("serve", help="judge images over HTTP")
    serve.add_argument("model", type=_path, help="what `castnet export` wrote")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    serve.add_argument("--shadow", type=_path, metavar="MODEL", help="record another model's verdicts beside these")
    serve.add_argument("--token-file", type=_path, metavar="FILE", help="holds the token that requests must bear")
    serve.add_argument("--open", action="store_true", help="listen on any address without a token")
    _add_record(serve)
    serve.set_defaults(run=_serve)

    app = commands.add_parser("app", help="show the page on which to inspect castings")
    app.add_argument(
        "model", type=_path, nargs="?", help="what `castnet export` wrote (default: the last run in runs/)"
    )
    app.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    app.add_argument("--port", type=int, default=8501, help="port to listen on (default: %(default)s)")
    app.add_argument("--open", action="store_true", help="listen on any address without a login")
    _add_record(app)
    app.set_defaults(run=_app)
    return main


def parse() -> argparse.Namespace:
    """The command line, on which `predict` takes options before, between and after its paths.

    argparse is done with paths at the first option behind the model (https://github.com/python/cpython/issues/58399).
    """
    command = parser()
    args, left = command.parse_known_args()
    at = left.index("--") if "--" in left else len(left)  # what follows are paths, whatever they begin with
    options = left if args.run is not _predict else [word for word in left[:at] if word.startswith("-")]
    if options:
        command.error(f"unrecognized arguments: {printable(' '.join(options))}")
    if left:
        args.paths += map(_name, left[:at] + left[at + 1 :])
    return args
