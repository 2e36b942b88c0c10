import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from castnet.errors import UserError
from castnet.study.space import Space, space


def parsed(*overrides: str) -> Space:
    return space(OverridesParser.create().parse_overrides(list(overrides)), averaged=["seed"])


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("interval(0,1)", FloatDistribution(0, 1)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(int,log,interval(1,8))", IntDistribution(1, 8, log=True)),
        ("range(1,9)", IntDistribution(1, 8)),
        ("range(16,129,16)", IntDistribution(16, 128, step=16)),
        ("tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("range(128,8,-32)", IntDistribution(32, 128, step=32)),
        ("range(0.5,0,-0.1)", FloatDistribution(0.1, 0.5, step=0.1)),
        ("range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("range(0,1,0.3)", FloatDistribution(0, 0.9, step=0.3)),
        ("choice(16,32)", CategoricalDistribution(("16", "32"))),
        ("area,nearest", CategoricalDistribution(("area", "nearest"))),
        ("choice([default],'a b')", CategoricalDistribution(("[default]", r"a\ b"))),
    ],
)
def test_hydras_grammar_means_in_a_study_what_it_means_elsewhere(sweep: str, expected: BaseDistribution) -> None:
    assert parsed(f"x={sweep}").searched == {"x": expected}


def test_steps_on_a_logarithmic_scale_are_refused() -> None:
    with pytest.raises(UserError, match="steps are not equal on a scale that is logarithmic"):
        parsed("x=tag(log,range(0.1,0.4,0.1))")


@pytest.mark.parametrize(
    "sweep", ["tag(lgo,interval(1,2))", "tag(log,choice(1,2))", "tag(int,range(1,3))", "tag(log,shuffle(range(1,5)))"]
)
def test_a_tag_that_says_nothing_is_refused(sweep: str) -> None:
    with pytest.raises(UserError, match=r"^x=tag.*: nothing to search in \(the tag (lgo|log|int) says nothing here"):
        parsed(f"x={sweep}")


def test_of_two_overrides_of_a_key_the_later_counts() -> None:
    found = parsed("x=interval(0,1)", "y=1", "~z", "x=interval(2,3)", "y=choice(4,5)")
    assert found.searched == {"x": FloatDistribution(2, 3), "y": CategoricalDistribution(("4", "5"))}
    assert found.fixed == ["~z"]


def test_sweeps_of_averaged_keys_are_the_runs_of_a_trial() -> None:
    assert parsed("x=1,2", "seed=range(3)").repeats == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert parsed("x=1,2").repeats == [[]]
    with pytest.raises(UserError, match="no list of values to average over"):
        parsed("x=1,2", "seed=interval(0,1)")


def test_a_key_that_is_forced_is_the_same_key() -> None:
    found = parsed("x=1,2", "y=interval(0,1)", "++x=interval(2,3)", "++y=1", "++seed=0,1", "+new=3,4")
    assert found.searched == {"++x": FloatDistribution(2, 3), "+new": CategoricalDistribution(("3", "4"))}
    assert (found.fixed, found.averaged, found.repeats) == (["++y=1"], ["++seed=0,1"], [["++seed=0"], ["++seed=1"]])
    added = space(OverridesParser.create().parse_overrides(["x=1,2", "+new=3,4"]), averaged=["+new"])
    assert (added.searched.keys(), added.repeats) == ({"x"}, [["+new=3"], ["+new=4"]])


def test_what_is_added_and_then_changed_keeps_both_lines() -> None:
    found = parsed("x=1,2", "+new=1", "new=2", "++y=1", "y=2", "+z=1", "++z=2")
    assert found.fixed == ["+new=1", "new=2", "y=2", "++z=2"]
