"""The examination by part: the folds of a sweep together, every part judged by a network that never saw it."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from castnet.data.groups import read_groups, read_slices
from castnet.data.split import Indices, folds_of
from castnet.errors import UserError, fail, or_exit
from castnet.imaging.decode import decode
from castnet.imaging.listing import class_of
from castnet.imaging.resample import RESAMPLE
from castnet.report import figures, html
from castnet.report.callbacks import LIMITED
from castnet.report.interval import interval_note, rate_interval

FOLD = "data.fold="
# What all settings of one report have in common.
COMMON = (
    "data", "data.root", "data.groups", "data.slices", "data.corrections", "data.defect_class", "data.test_fraction",
)  # fmt: skip
ALL = "all images"
ESCAPES = (0.01, 0.02)  # rates of escapes at which overkill is compared
# Logits in float32 tell probabilities apart up to 1 - 2 ** -24.
LARGEST_LOGIT = 16.6
SHOWN_PARTS = 120
THUMBNAIL = 64


@dataclass(frozen=True)
class Pooled:
    """The test images of all folds of one setting.

    Attributes:
        files: paths relative to the data's root, (n,).
        labels: class each image was judged by, (n,).
        defective: whether that is the defect, bool (n,).
        parts: which part each shows, int64 (n,).
        margins: how far P(defect) lies above its own fold's threshold, in calibrated logits, float64 (n,). Each fold's
            network has a scale and a threshold of its own, both chosen on its validation parts; so logits are divided
            by the fold's temperature and counted from the fold's threshold before folds are ranked together.
        parts_known: whether `parts` was given, or every image is taken for a part of its own.
    """

    files: list[str]
    labels: list[str]
    defective: NDArray[np.bool_]
    parts: Indices
    margins: NDArray[np.float64]
    parts_known: bool

    def only(self, chosen: NDArray[np.bool_]) -> "Pooled":
        """Some of the images, chosen by bool (n,)."""
        return self._of(np.flatnonzero(chosen))

    def _of(self, rows: Indices) -> "Pooled":
        files, labels = ([values[row] for row in rows] for values in (self.files, self.labels))
        return Pooled(files, labels, self.defective[rows], self.parts[rows], self.margins[rows], self.parts_known)

    def judged_by(self, labels: list[str], defect_class: str) -> "Pooled":
        """The same verdicts beside other labels."""
        return replace(self, labels=labels, defective=np.array(labels) == defect_class)

    @cached_property
    def by_part(self) -> "Pooled":
        """One observation for each part and label: the mean of its copies' margins, under its worst copy's name."""
        key = np.unique(np.stack([self.parts, self.defective]), axis=1, return_inverse=True)[1].ravel()
        worst = np.lexsort((self.signed, key))
        worst = np.sort(worst[np.unique(key[worst], return_index=True)[1]])
        # Rounded, or sums of many copies and of few would rank parts that all have the largest margin.
        means = (np.bincount(key, weights=self.margins) / np.bincount(key)).round(9)
        return replace(self._of(worst), margins=means[key[worst]])

    @property
    def signed(self) -> NDArray[np.float64]:
        """How far each image lies on its right side of the threshold; below zero it is judged wrongly."""
        return np.where(self.defective, self.margins, -self.margins)

    def numbers(self) -> dict[str, Any]:
        """Ranking and rates of these images; None where a class has none."""
        found: dict[str, Any] = {"images": len(self.files), "auroc": None}
        if self.defective.any() and not self.defective.all():
            found["auroc"] = float(roc_auc_score(self.defective, self.margins))
        for name, chosen in (("escape_rate", self.defective), ("overkill_rate", ~self.defective)):
            wrong = (self.margins[chosen] < 0) if name == "escape_rate" else (self.margins[chosen] >= 0)
            found[name] = float(wrong.mean()) if len(wrong) else None
            found[f"{name}_interval"] = list(rate_interval(wrong, self.parts[chosen])) if len(wrong) else None
        for rate in ESCAPES:
            found[f"overkill_at_{rate:.0%}_escapes"] = self._overkill_at(rate)
        return found

    def _overkill_at(self, escape_rate: float) -> float | None:
        """The share of good castings rejected by the highest cut that lets no more defects pass than that."""
        defective, good = np.sort(self.margins[self.defective]), self.margins[~self.defective]
        if not len(defective) or not len(good):
            return None
        return float((good >= defective[int(escape_rate * len(defective))]).mean())


class NewPartsReport(Callback):
    """When a sweep over folds ends, pool its runs: new_parts.html, .json and .png in the sweep's folder.

    Whatever else was swept, such as seeds, makes a setting of its own; the summary has mean and worst of them.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        words = [f"{name}={values}" for name, values in config.hydra.sweeper.get("params", {}).items()]
        words += config.hydra.overrides.task  # which come after it, and count
        asked = {word.key_or_group: word for word in OverridesParser.create().parse_overrides(words)}
        swept = {
            name: list(map(str, word.sweep_string_iterator()))
            for name, word in asked.items()
            if word.is_sweep_override()
        }
        # Hydra turns an exception of a callback into a warning, so this exits.
        for name in swept:
            if name in COMMON or name.startswith(("data.slices.", "data.corrections.")):
                fail(
                    f"{name}: one report is of one folder and its parts; sweep other settings, and run the command anew"
                )
        expected = [str(fold) for fold in range(folds_of(config.data.test_fraction))]
        if (folds := swept.get("data.fold")) and sorted(folds) != sorted(expected):  # one fold alone may be looked at
            fail(
                f"data.fold={','.join(folds)}: data.test_fraction={config.data.test_fraction} makes {len(expected)} "
                f"folds, and the report needs each once; set data.fold={','.join(expected)}"
            )

    @or_exit(UserError, OSError)
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        runs = sorted(folder.glob("*/metrics.json"), key=lambda path: (len(path.parent.name), path.parent.name))
        settings: dict[str, dict[str, Path]] = defaultdict(dict)
        for run in (path.parent for path in runs):
            words = [str(word) for word in OmegaConf.load(run / ".hydra" / "overrides.yaml")]
            setting = " ".join(word for word in words if not word.startswith(FOLD))
            settings[setting].setdefault(" ".join(words), run)  # a study may try a setting again
        data = OmegaConf.to_container(config.data, resolve=True)
        assert isinstance(data, dict)
        folds = folds_of(data["test_fraction"])
        whole = {name: found for name, of in settings.items() if _is_whole(found := list(of.values()), folds)}
        if not whole:
            print(f"new parts: no report, since {folder} has not a run of every fold of any setting")
            return
        judged = [json.loads((run / "metrics.json").read_text()) for of in whole.values() for run in of]
        data["protocol"] = judged[0]["data"]["protocol"]  # where a run has more to say
        if any(of["data"]["protocol"].startswith(LIMITED) for of in judged):
            print(f"new parts: no report, since the runs in {folder} judged some of their test images alone")
            return
        report = Examination({name: pool(of, data) for name, of in whole.items()}, data)
        report.write(folder)
        Console().print(report.table())
        print(f"report: {folder / 'new_parts.html'}")


def _is_whole(runs: Sequence[Path], folds: int) -> bool:
    found = [json.loads((run / "metrics.json").read_text())["data"]["fold"] for run in runs]
    return sorted(found) == list(range(folds))


def pool(runs: Sequence[Path], data: Mapping[Any, Any]) -> Pooled:
    """The test images of runs, one for each fold, whose data settings are `data` but for the fold."""
    files: list[str] = []
    labels: list[str] = []
    margins = []
    for run in runs:
        cut = np.float32(json.loads((run / "metrics.json").read_text())["threshold"])  # as verdicts compare it
        with (run / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = list(csv.DictReader(table))
        files += [row["file"] for row in rows]
        labels += [row["true"] for row in rows]
        margins.append(_logit(np.array([float(row["p_defect"]) for row in rows])) - _logit(np.array([cut], np.float64)))
    if len(set(files)) < len(files):
        raise UserError(
            f"data.root={data['root']}: its images or data.groups changed while the folds were trained, so that some "
            "images are judged twice and others never; leave both alone and run the command anew"
        )
    parts = np.arange(len(files)) if data["groups"] is None else read_groups(Path(data["groups"]), files)
    defective = np.array(labels) == data["defect_class"]
    return Pooled(files, labels, defective, parts, np.concatenate(margins), data["groups"] is not None)


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.clip(np.log(probability) - np.log1p(-probability), -10 * LARGEST_LOGIT, LARGEST_LOGIT)


@dataclass(frozen=True)
class Examination:
    """Everything that the page says of a folder's parts.

    Attributes:
        pooled: the judgement of all images, by setting.
        data: the data settings that all have in common.
    """

    pooled: dict[str, Pooled]
    data: Mapping[Any, Any]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What new_parts.json holds: by setting, and mean and worst over settings, each by images chosen."""
        settings = {name: self._numbers(pooled) for name, pooled in self.pooled.items()}
        each = list(settings.values())
        summary = {
            chosen: {
                name: {"mean": float(np.mean(values)), "worst": min(values) if "auroc" in name else max(values)}
                for name in each[0][chosen]
                if "interval" not in name
                for values in [[of[chosen][name] for of in each]]
                if None not in values
            }
            for chosen in each[0]
        }
        pooled = next(iter(self.pooled.values()))
        labels = np.array(pooled.labels)
        return {
            "data": {key: self.data[key] for key in ("source", "root", "groups", "protocol", "defect_class")},
            "folds": folds_of(self.data["test_fraction"]),
            "parts": {str(name): len(set(pooled.parts[labels == name])) for name in np.unique(labels)},
            "intervals": interval_note(pooled.parts_known),
            "summary": summary,
            "settings": settings,
        }

    def _numbers(self, pooled: Pooled) -> dict[str, Any]:
        chosen = {ALL: pooled}
        slices = read_slices(self.data["slices"], pooled.files)
        chosen |= {name: pooled.only(of) for name, of in slices.items()}
        if pooled.parts_known:
            chosen["by part: mean of its copies"] = pooled.by_part
        published = [class_of(file) for file in pooled.files]
        if published != pooled.labels:
            chosen["labels as published"] = pooled.judged_by(published, self.data["defect_class"])
        return {name: of.numbers() for name, of in chosen.items()}

    @cached_property
    def worst(self) -> str:
        """The setting that ranks worst; the picture shows it."""
        return min(self.pooled, key=lambda name: self.metrics["settings"][name][ALL]["auroc"] or 0.0)

    def table(self) -> Table:
        """Mean and worst over settings, for a terminal."""
        title = f"New parts: {self.metrics['folds']} folds by part, settings: {len(self.pooled)}"
        table = Table(title=title, title_justify="left")
        for column in ("images chosen", "figure", "mean", "worst"):
            table.add_column(column, justify="left" if column in ("images chosen", "figure") else "right")
        for chosen, numbers in self.metrics["summary"].items():
            table.add_section()
            for row, (name, values) in enumerate(numbers.items()):
                form = "{:,.0f}" if name == "images" else "{:.5f}"
                shown = (form.format(values[of]) for of in ("mean", "worst"))
                table.add_row(escape(chosen) if row == 0 else "", name.replace("_", " "), *shown)
        table.caption = escape(f"{self.metrics['intervals']} {self.data['protocol']}")
        table.caption_justify = "left"
        return table

    def picture(self) -> Figure:
        """The parts of the worst setting as columns of dots, worst first, at most `SHOWN_PARTS` of them."""
        pooled = self.pooled[self.worst]
        order = {part: pooled.signed[pooled.parts == part].min() for part in np.unique(pooled.parts)}
        shown = sorted(order, key=order.__getitem__)[:SHOWN_PARTS]
        rows = [np.flatnonzero(pooled.parts == part) for part in shown]
        worst = [of[pooled.signed[of].argmin()] for of in rows]
        thumbnails = [RESAMPLE["area"](decode(Path(self.data["root"]) / pooled.files[row]), THUMBNAIL) for row in worst]
        margins = [pooled.margins[of].clip(-LARGEST_LOGIT, LARGEST_LOGIT) for of in rows]
        return figures.parts_against_cut(margins, [pooled.defective[of] for of in rows], thumbnails)

    def write(self, folder: Path) -> None:
        """Write new_parts.json, .png and .html."""
        (folder / "new_parts.json").write_text(json.dumps(self.metrics, indent=2) + "\n")
        picture = html.png(self.picture())
        (folder / "new_parts.png").write_bytes(picture)
        shown = min(SHOWN_PARTS, len(np.unique(self.pooled[self.worst].parts)))
        values = {"metrics": self.metrics, "worst": self.worst, "shown": shown}
        (folder / "new_parts.html").write_text(
            html.render("new_parts.html.j2", {"parts": picture}, **values), encoding="utf-8", errors="surrogateescape"
        )
