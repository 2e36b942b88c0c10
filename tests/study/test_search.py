import csv
import json
import re
import shlex
import sqlite3
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError

from castnet.report.html import png
from castnet.study.page import _figures
from castnet.study.storage import AWAY, open_storage
from tests.conftest import BLANK, PATIENCE, Command, Ran, begin, call, until
from tests.study import quick

STUDY = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.study_name=s"]
LR = "model.lr=tag(log,interval(1e-4,1e-2))"


def grid(points: str) -> list[str]:
    """Settings of a sampler that tries certain points."""
    sampler = "hydra.sweeper.sampler"
    return [f"{sampler}._target_=optuna.samplers.GridSampler", f"+{sampler}.search_space={{{points}}}"]


@pytest.fixture
def search(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The study `s` on results that take no time, with pictures left blank; overrides are its arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("castnet.study.page.png", lambda figure: BLANK)

    def run(*overrides: str, folder: str = "run") -> Ran:
        return call(quick.main, *STUDY, *overrides, capture=capfd, folder=tmp_path / folder)

    return run


def study(storage: str = "sqlite:///runs/studies.db") -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage)


def states(of: optuna.Study) -> list[str]:
    return [trial.state.name for trial in of.get_trials()]


def test_a_trial_trains_all_its_seeds_and_reports_every_epoch(run_train: Command) -> None:
    ran = run_train(*STUDY, LR, "seed=0,1", "hydra.sweeper.n_trials=1")
    assert ran.code == 0, ran.err
    (trial,) = study().get_trials()
    assert trial.intermediate_values.keys() == {0, 1, 2, 3}  # two epochs of two seeds
    with (ran.folder / "sweep.csv").open() as table:
        runs = [row["overrides"].split()[-1] for row in csv.DictReader(table)]
    assert runs == ["seed=0", "seed=1"]
    losses = [trial.intermediate_values[step] for step in range(4)]
    assert trial.value == pytest.approx((min(losses[::2]) + min(losses[1::2])) / 2, abs=1e-5)
    assert "-m seed=0,1" in (ran.folder / "study.html").read_text()


def test_epochs_that_are_not_validated_are_not_reported(run_train: Command) -> None:
    every_second = "+trainer.check_val_every_n_epoch=2"
    name = "hydra.sweeper.study_name='it\\'s'"
    ran = run_train(*STUDY[:2], name, LR, "hydra.sweeper.n_trials=1", every_second, "trainer.max_epochs=3")
    assert ran.code == 0, ran.err
    (trial,) = optuna.load_study(study_name="it's", storage="sqlite:///runs/studies.db").get_trials()
    assert trial.intermediate_values.keys() == {1}


def test_a_trial_that_is_not_validated_fails_and_says_so(run_train: Command) -> None:
    ran = run_train(*STUDY, LR, "hydra.sweeper.n_trials=1", "+trainer.check_val_every_n_epoch=9")
    assert ran.code == 2
    assert "error: trial 0: was not validated, so that it has no loss" in ran.err
    assert states(study()) == ["FAIL"]


def test_a_hopeless_trial_ends_while_it_trains_and_with_it_its_other_seeds(run_train: Command) -> None:
    pruner = ["_target_=optuna.pruners.ThresholdPruner", "n_warmup_steps=0"]
    hopeless = ["~hydra.sweeper.pruner.n_startup_trials", "+hydra.sweeper.pruner.upper=0.0"]
    hopeless += [f"hydra.sweeper.pruner.{setting}" for setting in pruner]
    ran = run_train(*STUDY, LR, "seed=0,1", "hydra.sweeper.n_trials=1", *hopeless)
    assert ran.code == 0, ran.err
    (trial,) = study().get_trials()
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values.keys() == {0}  # one epoch of one seed
    assert not list(ran.folder.glob("*/metrics.json"))
    assert "No trial has a result" in (ran.folder / "study.html").read_text()


def test_what_the_storage_does_not_take_ends_no_run_and_a_trial_that_was_taken_over_ends(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[int] = []

    def report(trial: optuna.Trial, value: float, step: int, report: Callable[..., None] = optuna.Trial.report) -> None:
        reported.append(step)
        if len(reported) == 1:
            raise StorageInternalError("away") from OSError("no room")
        if len(reported) == 2:  # as another machine does, which had no sign of life from here
            study().tell(trial.number, state=optuna.trial.TrialState.FAIL)
        report(trial, value, step)

    monkeypatch.setattr(optuna.Trial, "report", report)
    ran = run_train(*STUDY, LR, "hydra.sweeper.n_trials=1")
    assert ran.code == 0, ran.err
    assert reported == [0, 1, 0, 1]
    assert "Epoch 0 is not reported to the study (no room)" in ran.out + ran.err
    assert states(study()) == ["FAIL", "COMPLETE"]


def test_a_storage_may_be_away_for_a_moment_and_one_that_stays_away_is_one_line(
    search: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(here: str, there: str) -> None:
        Path(here).rename(there)

    def away(cfg: DictConfig, result: Callable[..., dict[str, float]] = quick.result) -> dict[str, float]:
        move("runs", "moved")
        return result(cfg)

    def tell(*arguments: Any, tell: Callable[..., Any] = optuna.Study.tell, **options: Any) -> Any:
        try:
            return tell(*arguments, **options)
        except AWAY:
            if is_back:
                move("moved", "runs")
            raise

    monkeypatch.setattr(quick, "result", away)
    monkeypatch.setattr(optuna.Study, "tell", tell)
    monkeypatch.setattr("castnet.study.storage.PAUSE", 0.1)
    is_back = True
    assert (ran := search(LR, "hydra.sweeper.n_trials=1")).code == 0, ran.err
    is_back = False
    monkeypatch.setattr("castnet.study.storage.GRACE", 0.2)
    ran = search(LR, "hydra.sweeper.n_trials=2", folder="gone")
    assert ran.code == 2
    assert "error: hydra.sweeper.storage=sqlite:///" in ran.err
    assert "went away (" in ran.err
    assert "when it is back, 'hydra.sweeper.study_name=\"s\"' goes on with the study" in ran.err


def test_a_sign_of_life_that_the_storage_does_not_take_is_followed_by_others(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    storage = open_storage(f"sqlite:///{tmp_path}/here/studies.db")
    trial = optuna.create_study(storage=storage).ask()
    storage.engine.dispose()
    (tmp_path / "here").rename(tmp_path / "away")
    storage.record_heartbeat(trial._trial_id)
    (tmp_path / "away").rename(tmp_path / "here")
    storage.record_heartbeat(trial._trial_id)
    with sqlite3.connect(tmp_path / "here" / "studies.db") as database:
        assert database.execute("select count(*) from trial_heartbeats").fetchone() == (1,)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_of_several_objectives_each_has_its_own_values_and_the_importances_for_good_ones(
    direction: str, sign: int
) -> None:
    def values(trial: optuna.Trial) -> tuple[float, float]:
        a, b = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)
        return sign * (0.5 if b > 0.8 else 0.9 + 0.1 * a), a  # who avoids the worst has only a to choose

    made = optuna.create_study(directions=[direction, "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(values, n_trials=100)
    drawn = dict(_figures(made, ["one", "other"]))
    (axes,) = drawn["one: importance of the settings"].axes
    shares = [bar.get_width() for bar in axes.patches]
    assert dict(zip([label.get_text() for label in axes.get_yticklabels()], shares, strict=True))["a"] > 0.9
    for index, name in enumerate(("one", "other")):
        (axes,) = drawn[f"{name}: history"].axes
        shown = axes.collections[0].get_offsets()[:, 1].tolist()
        assert shown == pytest.approx([trial.values[index] for trial in made.trials])


def test_a_trial_is_judged_by_the_mean_of_its_repetitions(search: Command) -> None:
    ran = search(LR, "seed=0,1,4", "hydra.sweeper.n_trials=2")
    assert ran.code == 0, ran.err
    for trial in study().get_trials():
        assert trial.value == pytest.approx(abs(trial.params["model.lr"] - 1e-3) + 0.1 * 5 / 3)
    assert {path.parent.parent.name for path in ran.folder.glob("*/.hydra/overrides.yaml")} == set("012345")


def test_the_best_overrides_are_a_line_to_paste(search: Command) -> None:
    ran = search("study=default", "trainer.max_epochs=3", "hydra.sweeper.n_trials=3", "~callbacks.progress_bar")
    assert ran.code == 0, ran.err
    best = study().best_trial
    (line,) = re.findall(r"python train\.py .*", ran.out)
    assert "'~callbacks.progress_bar'" in line  # which a shell may take for somebody's home
    assert f"loss {best.value:.5g}: {line}" in ran.out
    overrides = shlex.split(line)[2:]
    assert overrides[:2] == ["trainer.max_epochs=3", "~callbacks.progress_bar"]
    assert dict(override.split("=") for override in overrides[2:]) == {k: str(v) for k, v in best.params.items()}
    assert "3 complete" in ran.out
    for title in ("loss: history", "loss: by setting", "loss: importance of the settings"):
        assert title in (ran.folder / "study.html").read_text()


def test_several_objectives_end_with_their_pareto_front(search: Command) -> None:
    ran = search("study=escapes", "hydra.sweeper.n_trials=3")
    assert ran.code == 0, ran.err
    assert len(study().best_trials) == 3  # what one gains, the other loses
    page = (ran.folder / "study.html").read_text()
    assert "Which of one can be had at which of the other" in page
    assert page.count("<code>") == 3


def test_a_study_goes_on_under_its_name_up_to_its_trials(search: Command) -> None:
    for folder, n, launched in (("first", 2, 2), ("second", 5, 3), ("third", 5, 0)):
        ran = search(LR, f"hydra.sweeper.n_trials={n}", folder=folder)
        assert ran.code == 0, ran.err
        assert len(list(ran.folder.glob("*/.hydra"))) == launched
    assert states(study()) == ["COMPLETE"] * 5


def test_a_killed_study_tries_the_lost_settings_again(search: Command, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    arguments = [*STUDY, LR, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=killed"]
    killed = begin(quick.main, *arguments, into=tmp_path / "said", QUICK_BEGUN=begun, QUICK_SECONDS=60)
    until(begun.exists)
    killed.kill()
    killed.join()
    assert states(study()) == ["RUNNING"]
    lost = study().get_trials()[0].params
    with sqlite3.connect("runs/studies.db") as database:  # as if its machine had been silent for an hour
        database.execute("update trial_heartbeats set heartbeat = datetime(heartbeat, '-1 hour')")
    ran = search(LR, "hydra.sweeper.n_trials=2", folder="resumed")
    assert ran.code == 0, ran.err
    assert states(study()) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study().get_trials()[1].params == lost


def test_settings_that_were_asked_for_and_never_tried_are_tried_again(
    search: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as interrupted:
        interrupted.setattr("castnet.study.search.Search._try", lambda *_: sys.exit(1))
        search(LR, "hydra.sweeper.n_trials=2")
    assert states(study()) == ["RUNNING"]
    with sqlite3.connect("runs/studies.db") as database:  # as if its machine had been silent for an hour
        database.execute("update trial_heartbeats set heartbeat = datetime(heartbeat, '-1 hour')")
    ran = search(LR, "hydra.sweeper.n_trials=2", folder="resumed")
    assert ran.code == 0, ran.err
    assert sorted(states(study())) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_study_that_is_told_to_stop_leaves_no_trial_under_way(search: Command, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    several = [LR, "hydra.sweeper.n_jobs=3", "hydra.sweep.dir=stopped"]
    environment = {"QUICK_BEGUN": begun, "QUICK_LATER": PATIENCE}
    stopped = begin(quick.main, *STUDY, *several, into=tmp_path / "said", **environment)
    until(lambda: begun.exists() and len(begun.read_text().splitlines()) > 1)
    stopped.terminate()
    stopped.join(PATIENCE)
    assert stopped.exitcode == 143
    first, *others = states(study())
    assert first == "COMPLETE"
    assert others[-1] == "FAIL"
    assert "RUNNING" not in others


@pytest.mark.parametrize("kept_in", ["a file", "PostgreSQL"])
def test_two_machines_share_a_study(
    search: Command, tmp_path: Path, kept_in: str, request: pytest.FixtureRequest
) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    if kept_in == "PostgreSQL":
        storage = request.getfixturevalue("postgresql").new_database()
    arguments = [LR, "hydra.sweeper.n_trials=5", f"hydra.sweeper.storage='{storage}'"]
    begun, said = tmp_path / "begun", tmp_path / "said"
    other = begin(
        quick.main, *STUDY, *arguments, "hydra.sweep.dir=other", into=said, QUICK_BEGUN=begun, QUICK_SECONDS=1
    )
    until(begun.exists)
    ran = search(*arguments, folder="this")
    other.join(PATIENCE)
    assert (ran.code, other.exitcode) == (0, 0), ran.err + said.read_text()
    assert sorted(states(study(storage)))[:5] == ["COMPLETE"] * 5
    assert states(study(storage)).count("COMPLETE") == 5
    for name, told in (("this", ran.out), ("other", said.read_text())):
        assert "5 complete" in told
        assert (tmp_path / name / "study.html").exists()


def test_a_few_failures_do_not_end_a_study_but_many_do(search: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ["hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", "+hydra.sweeper.sampler.seed=1"]
    ran = search("model.lr=choice(1e-3,1)", "hydra.sweeper.n_trials=4", "hydra.sweeper.max_failure_rate=1.0", *drawn)
    assert ran.code == 0, ran.err
    assert states(study()).count("COMPLETE") == 4
    assert "FAIL" in states(study())
    ran = search("model.lr=interval(0.6,1)", "hydra.sweeper.study_name=bad", folder="bad")
    assert ran.code == 70
    assert "diverged" in ran.err
    monkeypatch.setattr("castnet.study.search.HOPELESS", 3)
    named = ["hydra.sweeper.study_name=worse", "hydra.sweeper.max_failure_rate=1.0"]
    assert search("model.lr=interval(0.6,1)", *named, folder="worse").code == 70
    worse = optuna.load_study(study_name="worse", storage="sqlite:///runs/studies.db")
    assert states(worse) == ["FAIL"] * 3


def test_what_came_of_a_trial_counts_though_others_beside_it_failed(
    search: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castnet.study.search.BasicLauncher", type(None))  # which would take one after the other
    drawn = ["hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", "+hydra.sweeper.sampler.seed=1"]
    several = ["hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=8", "hydra.sweeper.max_failure_rate=0.0"]
    assert search("model.lr=choice(1e-3,1)", *several, *drawn).code == 70
    states_of = {(trial.params["model.lr"], trial.state.name) for trial in study().trials}
    assert states_of == {("0.001", "COMPLETE"), ("1", "FAIL")}


def test_a_sampler_that_has_nothing_left_ends_the_study(search: Command) -> None:
    ran = search("model.lr=interval(1e-4,1e-2)", *grid("model.lr:[1e-3,2e-3]"))
    assert (ran.code, states(study())) == (0, ["COMPLETE"] * 2), ran.err
    assert "2 complete" in ran.out
    again = search("model.lr=interval(1e-4,1e-2)", *grid("model.lr:[1e-3,2e-3]"), folder="again")
    assert (again.code, states(study())) == (0, ["COMPLETE"] * 2), again.err


def test_the_dashboard_opens_the_same_storage(search: Command) -> None:
    import optuna_dashboard

    assert search(LR, "hydra.sweeper.n_trials=1").code == 0
    answer: list[str] = []
    environ: dict[str, object] = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environ)
    body = b"".join(
        optuna_dashboard.wsgi("sqlite:///runs/studies.db")(environ, lambda status, *_: answer.append(status))
    )
    assert answer == ["200 OK"]
    assert b'"study_name": "s"' in body


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "hydra.sweeper.params: names no setting to search"),
        (["model.lrr=interval(0,1)"], "Could not override 'model.lrr'"),
        (["study=defualt"], "Could not find 'study/defualt'"),
        (["model.lr=interval(1,0)"], "model.lr=interval(1,0): nothing to search in"),
        ([LR, "hydra.sweeper.objective=escapes"], "hydra.sweeper.objective=escapes: expected 'loss', 'accuracy'"),
        ([LR, "hydra.sweeper.direction=down"], "hydra.sweeper.direction=down: expected 'minimize' or 'maximize'"),
        (["study=escapes", "hydra.sweeper.pruner={_target_:x}"], "several need hydra.sweeper.pruner=null"),
        (["study=escapes", LR, "hydra.sweeper.objective=[loss,loss]"], "names one of them twice"),
        ([LR, "callbacks.checkpoint.monitor=val/escape_rate"], "no run tells its loss where callbacks.checkpoint"),
        ([LR, "callbacks.checkpoint.monitor=val/loss,val/escape_rate"], "no run tells its loss where"),
        ([LR, "+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0: validates nothing, by which trials"),
        ([LR, "hydra.sweeper._target_=x"], "Invalid plugin 'x'"),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: expected greater than"),
        ([LR, "hydra.sweeper.storage=nonsense"], "hydra.sweeper.storage=nonsense: no URL of a database"),
        ([LR, "hydra.sweeper.direction=maximize"], "would search for the worst loss; expected minimize for it"),
        ([LR, "hydra.sweeper.objective=auroc"], "would search for the worst auroc; expected maximize for it"),
        ([LR, "hydra.sweeper.storage='sqlite://'"], "hydra.sweeper.storage=sqlite://: is in memory"),
        ([LR, "hydra.sweeper.storage='sqlite:///:memory:'"], ": is in memory, where no run finds it"),
        ([LR, "hydra.sweeper.storage=postgresql+psycopg://u:secret@127.0.0.1:1/x"], "@127.0.0.1:1/x: cannot be opened"),
        ([LR, "hydra.sweeper.storage='postgresql+psycopg:///x?host=/x&password=secret'"], "///x: cannot be opened"),
        ([LR, "hydra.sweeper.storage='postgresqlu:secret'"], "hydra.sweeper.storage=postgresqlu: no URL"),
        ([LR, "~hydra.sweeper.sampler._target_"], "hydra.sweeper.sampler"),
        ([LR, *grid("seed:[1]")], "hydra.sweeper.sampler=optuna.samplers.GridSampler: cannot draw settings"),
        ([LR, "hydra.sweeper.sampler={_target_:optuna.NoSuch}"], "sampler._target_=optuna.NoSuch: cannot be had"),
        ([LR, "hydra.sweeper.storage=sqlite:////proc/x/studies.db"], "cannot be opened"),
        ([LR, "hydra.sweeper.average=[seeed]", "seed=0,1"], "hydra.sweeper.average: seeed is no setting"),
        ([LR, "hydra.sweeper.pruner.n_startup_trials=-1"], "hydra.sweeper.pruner: Number of startup trials"),
        (["model.dropout=interval(0,1.5)"], "model.dropout=1.4999999999999998: expected"),
        ([LR, "seed=0,x"], "seed=x: expected"),
        (["model.lr=1e-3,2e-3,0", "seed=0,1"], "model.lr=0: expected"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_before_the_first_trial(search: Command, overrides: list[str], message: str) -> None:
    ran = search(*overrides)
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "secret" not in ran.err + ran.out
    assert not list(ran.folder.glob("*/.hydra"))


def test_a_group_may_be_averaged_over(search: Command) -> None:
    ran = search(LR, "hydra.sweeper.average=[experiment]", "experiment=fast,seed", "hydra.sweeper.n_trials=1")
    assert ran.code == 0, ran.err
    assert len(list(ran.folder.glob("*/.hydra"))) == 2


@pytest.mark.parametrize(
    "rates",
    [
        (1e-4, 1.3e-3, 9.7e-3),
        (2e-4, 4e-3),
        (1e-8, 0.4),
        (2.9890645e-4, 2.9990645e-4),
        (1.495118e-3, 1.6e-3),
        (2.056130e-4, 2.2e-4, 2.474413e-4),
        (4.68015105e-6, 4.68015107e-6),
    ],
)
def test_numbers_at_an_axis_of_logarithms_can_be_read(rates: tuple[float, ...]) -> None:
    of = {
        "model.lr": FloatDistribution(1e-8, 0.5, log=True),
        "data.batch_size": CategoricalDistribution(("8", "16")),
        "seed": CategoricalDistribution(("0", "1", "2")),
    }
    study = optuna.create_study()
    for rate in rates:
        params = {"model.lr": rate, "data.batch_size": "8", "seed": "2"}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=of, value=rate))
    axes = [axes for _, figure in _figures(study, ["loss"]) if png(figure) for axes in figure.axes]
    (axis,) = [one for one in axes if one.get_xscale() == "log"]
    low, high = axis.get_xlim()
    places = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    shown = [label for at, label in places if low <= at <= high and label.get_text()]
    ends = [label.get_window_extent() for label in shown]
    assert ends
    assert all(one.x1 < other.x0 for one, other in pairwise(ends))
    assert not [label for label in axis.get_xticklabels(minor=True) if label.get_text()]


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_study_that_another_program_made_the_other_way_round_is_not_gone_on_with(
    search: Command, directions: list[str]
) -> None:
    Path("runs").mkdir()
    optuna.create_study(storage="sqlite:///runs/studies.db", study_name="s", directions=directions)
    ran = search(LR)
    assert ran.code == 2
    assert f"hydra.sweeper.study_name=s: that study has other directions: {json.dumps(directions)}" in ran.err
    assert not study().user_attrs


def test_a_study_in_which_another_program_has_trials_is_not_gone_on_with(search: Command) -> None:
    Path("runs").mkdir()
    optuna.create_study(storage="sqlite:///runs/studies.db", study_name="s").optimize(lambda _: 0.5, n_trials=1)
    ran = search(LR)
    assert ran.code == 2
    assert "hydra.sweeper.study_name=s: that study has other objective: nothing instead of {'loss'" in ran.err
    assert (states(study()), study().user_attrs) == (["COMPLETE"], {})


def test_a_study_that_compares_something_else_is_not_gone_on_with(search: Command) -> None:
    assert search(LR, "hydra.sweeper.n_trials=1").code == 0
    for other, part, differs in [
        (["model.lr=interval(0.5,1)"], "search space", '"low": 0.5, "high": 1.0, "log": false}}\'}'),
        ([LR, "seed=0,1"], "repetitions", "[[]] instead of [['seed=0'], ['seed=1']]"),
        ([LR, "trainer.max_epochs=3"], "fixed settings", "nothing instead of ['trainer.max_epochs=3']"),
        (
            [LR, "hydra.sweeper.objective=escape_rate"],
            "objective",
            "{'loss': 'minimize'} instead of {'escape_rate': 'minimize'}",
        ),
    ]:
        ran = search(*other, folder=part)
        assert ran.code == 2
        assert f"hydra.sweeper.study_name=s: that study has other {part}: " in ran.err
        assert f"{differs}; name a new study" in ran.err
    own = ["trainer.devices=2", "paths.cache_dir=cache", "++data.root=copy", "trainer.accelerator=cpu"]
    own += ["data.num_workers=1", "~logger.tensorboard"]
    assert search(LR, "hydra.sweeper.n_trials=2", *own, folder="elsewhere").code == 0
    two = ["hydra.sweeper.study_name=two", "hydra.sweeper.n_trials=1", "hydra.sweeper.pruner=null"]
    two += ["hydra.sweeper.direction=[minimize,minimize]"]
    assert search(LR, *two, "hydra.sweeper.objective=[loss,escape_rate]", folder="two").code == 0
    ran = search(LR, *two, "hydra.sweeper.objective=[escape_rate,loss]", folder="turned")
    assert "that study has other objective: {'loss': 'minimize', 'escape_rate': 'minimize'} instead of" in ran.err
