"""A search goes on to the last digit, and refuses what it should not go on with."""

import json
import math
import sys
from pathlib import Path

import pytest

from predictor_core import PredictorConfig
from predictor_core.tuning import (
    DEEP,
    BayesianMetaOptimizer,
    IntegrityError,
    MissingExtra,
    SearchSpace,
    around,
    checkpoint,
    start,
)

from .conftest import SPACE, Bowls, bowl

POINT = {"x": 1.0, "rate": 0.1, "memory": 0.99, "size": 64, "kind": "b"}


@pytest.mark.parametrize("objective", [bowl, Bowls(8), Bowls(10)], ids=["alone", "by eight", "by ten"])
def test_25_trials_and_25_after_a_restart_are_50_trials_to_the_last_digit(make_study, tmp_path, objective):
    whole = make_study(50, objective, folder=None)
    whole.optimize()
    make_study(25, objective).optimize()
    resumed = make_study(50, objective)
    resumed.load_study(resumed.path)
    assert resumed.iteration == 25
    assert resumed.optimize() == whole.best.params
    assert resumed.trials == whole.trials


def test_a_search_finds_what_blind_draws_do_not(make_study):
    study = make_study(40)
    study.optimize()
    blind = min(trial.value for trial in study.trials[:10])
    assert study.best.value < 0.5 * blind


def test_every_candidate_lies_in_the_space(make_study):
    study = make_study(30)
    study.optimize()
    assert all(trial.params[name] in knob for trial in study.trials for name, knob in SPACE.items())
    assert {trial.params["size"] for trial in study.trials} <= {16, 32, 64, 128, 256}


@pytest.mark.parametrize("objective", [bowl, Bowls(2)], ids=["alone", "by two"])
def test_the_candidates_that_are_given_come_first(make_study, objective):
    first = [{"x": 0.1 * k, "rate": 0.3, "memory": 0.98, "size": 32, "kind": "c"} for k in range(3)]
    study = make_study(5, objective, first=first)
    study.optimize()
    for given, trial in zip(first, study.trials, strict=False):
        tried = trial.params
        assert tried == {**given, "memory": tried["memory"]}
        assert tried["memory"] == pytest.approx(0.98, abs=1e-15)  # it went there and back through 1 - x


def test_a_search_begins_with_the_present_numbers_and_each_knob_alone():
    near = around(DEEP, PredictorConfig())
    present, *others = start(near, PredictorConfig())
    assert present == {name: getattr(PredictorConfig(), name) for name in DEEP}
    moved = [{name for name in near if other[name] != present[name]} for other in others]
    assert all(len(names) == 1 for names in moved)
    assert {next(iter(names)) for names in moved} == set(DEEP)
    assert all(other[name] in knob for other in others for name, knob in near.items())


def test_no_knob_may_go_further_than_half_its_range():
    near = around(DEEP, PredictorConfig())
    assert near["cusum_h"].range == (2.0, 9.0)
    assert near["log_sig_depth"].range == (2, 3, 5)
    assert around(DEEP, PredictorConfig(log_sig_depth=2))["log_sig_depth"].range == (2, 3)
    assert around(DEEP, PredictorConfig(calibration_rate=0.0))["calibration_rate"].range[0] == 1e-4


def test_ctrl_c_leaves_a_study_that_goes_on(make_study):
    def interrupted(params):
        if len(study.trials) == 13:
            raise KeyboardInterrupt
        return bowl(params)

    study = make_study(20, interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.optimize()
    resumed = make_study(20)
    resumed.load_study(resumed.path)
    assert resumed.iteration == 13
    resumed.optimize()
    whole = make_study(20, folder=None)
    whole.optimize()
    assert resumed.trials == whole.trials


def test_patience_ends_a_search_that_no_longer_gains(make_study):
    study = make_study(50, lambda params: 1.0)
    study.optimize(early_stopping_patience=7)
    assert study.early_stopped
    assert study.iteration == 8


def test_a_trial_that_comes_to_nothing_is_kept_and_not_chosen(make_study):
    study = make_study(15, lambda params: math.nan if params["kind"] == "a" else bowl(params))
    study.optimize()
    resumed = make_study(15)
    resumed.load_study(resumed.path)
    assert resumed.iteration == 15
    assert study.best.params["kind"] != "a"


def test_a_search_without_any_value_says_so(make_study):
    with pytest.raises(ValueError, match="none of the 3 trials"):
        make_study(3, lambda params: math.inf).optimize()


def test_a_damaged_study_is_refused(make_study):
    study = make_study(3)
    study.optimize()
    study.path.write_bytes(study.path.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(IntegrityError, match="is damaged"):
        make_study(3).load_study(study.path)


def test_a_study_is_read_whole_while_another_process_writes_it(tmp_path):
    class ReadSlowly(type(tmp_path)):
        def read_bytes(self):
            data = super().read_bytes()
            if (trials := json.loads(data)["trials"]) < 3:
                checkpoint.write(Path(self), {"trials": trials + 1})
            return data

    checkpoint.write(tmp_path / "s.json", {"trials": 0})
    assert checkpoint.read(ReadSlowly(tmp_path / "s.json"))["trials"] == 3


def test_a_study_or_a_sum_that_is_missing_is_named(make_study, tmp_path):
    study = make_study(3)
    with pytest.raises(FileNotFoundError, match="there is no study at"):
        study.load_study(tmp_path / "none.json")
    study.optimize()
    checkpoint.sidecar(study.path).unlink()
    with pytest.raises(FileNotFoundError, match="sha256 is missing"):
        study.load_study(study.path)


@pytest.mark.parametrize("other", [{"seed": 1}, {"objective": Bowls(8)}, {"first": [POINT]}])
def test_a_study_of_another_search_is_refused(make_study, other):
    study = make_study(2)
    study.optimize()
    with pytest.raises(ValueError, match="searched with another space, seed, start or objective"):
        make_study(2, **other).load_study(study.path)


def test_a_study_of_another_name_or_schema_is_refused(make_study, tmp_path):
    study = make_study(2)
    study.optimize()
    with pytest.raises(ValueError, match="holds the study 'bowl', not 'cup'"):
        BayesianMetaOptimizer(SPACE, bowl, "cup", 2, folder=tmp_path).load_study(study.path)
    content = json.loads(study.path.read_bytes())
    checkpoint.write(study.path, {**content, "schema": 99})
    with pytest.raises(ValueError, match="has schema 99"):
        study.load_study(study.path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search_space": {"cusum_k": SearchSpace("cusum_k", "float", (0.1, 1.0), locked=True)}}, "locked parameters"),
        ({"search_space": {"float_precision": SearchSpace("float_precision", "int", (32, 64))}}, "locked parameters"),
        ({"search_space": {}}, "search space is empty"),
        ({"tier": "slow"}, "tier must be one of"),
        ({"study_name": "../up"}, "a study's name is"),
        ({"max_iterations": 0}, "max_iterations must be at least 1"),
        ({"first": [{**POINT, "x": 9.0}]}, "outside the search space in"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(changes, told):
    given = {"search_space": SPACE, "objective_fn": bowl, "study_name": "s", "max_iterations": 5, **changes}
    with pytest.raises(ValueError, match=told) as refusal:
        BayesianMetaOptimizer(**given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("knob", "told"),
    [
        (("x", "gauss", (0, 1)), "param_type must be one of"),
        (("x", "float", (1, 0)), "low < high"),
        (("x", "log_uniform", (0.0, 1.0)), "must begin above 0"),
        (("x", "log_complement", (0.5, 1.0)), "must end below 1"),
        (("x", "categorical", ()), "at least one choice"),
        (("x", "int", (0, 9), False, "must be odd"), "constraint must be None or"),
    ],
)
def test_a_knob_that_cannot_be_is_refused(knob, told):
    with pytest.raises(ValueError, match=told):
        SearchSpace(*knob)


def test_without_optuna_one_line_says_which_extra_to_install(make_study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'universal-predictor\[tune\]'"):
        make_study(2).optimize()


def test_importance_names_the_knob_that_matters(make_study):
    study = make_study(60, lambda params: (params["x"] - 1) ** 2)
    study.optimize()
    shares = study.importance()
    assert max(shares, key=shares.get) == "x"
    assert sum(shares.values()) == pytest.approx(1)
