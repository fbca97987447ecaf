"""A search whose objective is a formula, and a small past of real series."""

import math
from pathlib import Path

import numpy as np
import pytest

from loadtests.processes import GENERATORS
from predictor_core.tuning import BayesianMetaOptimizer, SearchSpace
from predictor_core.tuning.history import regular
from predictor_core.tuning.runs import Runner

# Where the command keeps its compiled programs too: a second run of the tests starts in no time.
CACHE = Path(".predictor/cache").absolute()

SPACE = {
    "x": SearchSpace("x", "float", (-2.0, 2.0)),
    "rate": SearchSpace("rate", "log_uniform", (1e-4, 1.0)),
    "memory": SearchSpace("memory", "log_complement", (0.9, 0.9999)),
    "size": SearchSpace("size", "int", (16, 256), constraint="must be power of 2"),
    "kind": SearchSpace("kind", "categorical", ("a", "b", "c")),
}


def bowl(params):
    """Least at x = 1, rate = .01, memory = .99, size 64, kind b."""
    far = (params["x"] - 1) ** 2 + math.log10(params["rate"] * 100) ** 2 + math.log10((1 - params["memory"]) * 100) ** 2
    return far + abs(math.log2(params["size"]) - 6) + (params["kind"] != "b")


class Bowls:
    """The same for several candidates at once."""

    identity = "bowls"

    def __init__(self, at_once):
        self.at_once = at_once

    def __call__(self, params):
        return bowl(params)

    def many(self, candidates):
        return [bowl(params) for params in candidates]


@pytest.fixture
def make_study(tmp_path):
    def make(trials, objective=bowl, **options):
        return BayesianMetaOptimizer(SPACE, objective, "bowl", trials, **{"folder": tmp_path, **options})

    return make


@pytest.fixture(scope="session")
def runner():
    return Runner(CACHE)


@pytest.fixture(scope="session")
def past():
    """Three series of a thousand ticks and more."""
    lengths = {"logistic": 1200, "ar2": 1100, "fbm_0.2": 1000}
    return regular({name: GENERATORS[name](n, np.random.default_rng(1)).levels for name, n in lengths.items()})
