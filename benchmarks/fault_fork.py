"""Runs train.py, evaluate.py and `castnet` in forks of a process that has imported what they need, for the fault table.

What they do does not depend on it; but most faults are refused in less time than the imports take.

Each line of standard input is a call: [program, arguments, folder, file for standard output, file for standard error].
It is answered by the number of the process; and an empty line, when that has ended, by its exit code.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))  # where train.py is
import evaluate  # with train.py, imports Lightning and all of castnet that training needs
import train
from castnet import cli, entry
from castnet.export import export  # noqa: F401 (imports it)

MAINS = {
    "train.py": lambda: entry.guard(train.main),
    "evaluate.py": lambda: entry.guard(evaluate.main),
    "castnet": cli.main,
}


def main() -> None:
    for line in sys.stdin:
        program, arguments, folder, out, err = json.loads(line)
        process = os.fork()
        if process == 0:
            os.chdir(folder)
            for descriptor, file in enumerate((os.devnull, out, err)):
                os.dup2(os.open(file, os.O_RDWR), descriptor)
            sys.argv = [program, *arguments]
            _end(MAINS[program])
        print(process, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _end(call: Callable[[], object]) -> NoReturn:
    """Make a call, then end as Python does, but wait for no thread, since none came along when this process forked."""
    code: object = 0
    try:
        call()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
