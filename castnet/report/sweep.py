"""One table for all runs of a sweep: seeds, folds or settings side by side."""

import csv
import json
import shlex
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from castnet.errors import UserError, or_exit
from castnet.files import write_whole

COLUMNS = ("accuracy", "auroc", "escape_rate", "overkill_rate")
WIDE = 10_000  # characters, more than any table has


class SweepTable(Callback):
    """Gather a sweep's metrics.json into sweep.csv as its runs end; at its end, print them with mean and spread."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode is RunMode.MULTIRUN:  # a later run may fail and end the sweep
            self._gather(Path(config.hydra.sweep.dir))

    @or_exit(UserError, OSError)
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder, console = Path(config.hydra.sweep.dir), Console()
        if rows := self._gather(folder):
            table = self._table(rows, folder)
            least = console.measure(table, options=console.options.update(max_width=WIDE)).minimum
            if len(rows) > 1 and least > console.width:
                table = self._table(rows, folder, one_by_one=False)
            console.print(table)

    def _gather(self, folder: Path) -> list[dict[str, Any]]:
        runs = {path.parent.name: path for path in folder.glob("*/metrics.json")}
        rows = [self._row(folder / name) for name in sorted(runs, key=lambda name: (len(name), name))]
        if rows:
            text = StringIO()
            writer = csv.DictWriter(text, _columns(rows))
            writer.writeheader()
            writer.writerows(rows)
            write_whole({folder / "sweep.csv": text.getvalue().encode()})
        return rows

    def _row(self, run: Path) -> dict[str, Any]:
        metrics = json.loads((run / "metrics.json").read_text())
        overrides = shlex.join(OmegaConf.load(run / ".hydra" / "overrides.yaml"))
        row: dict[str, Any] = {"run": run.name, "overrides": overrides}
        row |= {f"val {name}": (metrics["validation"] or {}).get(name) for name in COLUMNS}
        row |= {f"test {name}": metrics[name] for name in COLUMNS}
        for class_name, scores in metrics["classes"].items():
            row |= {f"test {score} {class_name}": scores[score] for score in ("precision", "recall", "f1")}
        for slice_name, numbers in metrics["slices"].items():
            row |= {f"{slice_name}: {name}": numbers[name] for name in COLUMNS}
        return row

    def _table(self, rows: list[dict[str, Any]], folder: Path, one_by_one: bool = True) -> Table:
        """Metrics down, runs across if they are to be shown, then mean and standard deviation."""
        each = "" if one_by_one else f" (each in {folder / 'sweep.csv'})"
        table = Table(title=escape(f"{len(rows)} runs in {folder}{each}"), title_justify="left")
        table.add_column("")
        for row in rows if one_by_one else []:
            table.add_column(row["run"], justify="right")
        table.add_column("mean ± sd", justify="right")
        for name in [name for name in _columns(rows) if name not in ("run", "overrides")]:
            values = [row.get(name) for row in rows]
            numbers = [value for value in values if value is not None]
            whole = 1 < len(numbers) == len(values)
            spread = f"{mean(numbers):.4f} ± {stdev(numbers):.4f}" if whole else ""
            if numbers and not whole and not one_by_one:
                spread = f"{mean(numbers):.4f}, of {len(numbers)}"
            cells = ["–" if value is None else f"{value:.4f}" for value in values] if one_by_one else []
            table.add_row(escape(name), *cells, spread)
        table.caption = escape("\n".join(f"{row['run']}: {row['overrides']}" for row in rows))
        table.caption_justify = "left"
        return table


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """All that any run has; a slice that a fold has no image of is missing in its row."""
    return list(dict.fromkeys(name for row in rows for name in row))
