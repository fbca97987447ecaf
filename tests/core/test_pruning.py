"""Depth 1: kernels A and B stand still and have no say, C and D go on, and all of it can be made again."""

import numpy as np
import pytest

from predictor_core.config import PRUNED

ASSETS, TICKS = 70, 30  # more than one block of lanes
OF_A_AND_B = ("hilbert.readout", "galerkin")


@pytest.fixture(scope="module")
def history():
    rng = np.random.default_rng(3)
    moves = rng.standard_t(3, (TICKS, ASSETS)) * 10.0 ** rng.integers(-2, 3, ASSETS)
    return np.cumsum(moves, 0) + 100


@pytest.fixture
def played(program, run_ticks, history):
    """Rows after these depths, a tick of every asset each, and the results."""

    def play(depths, rows=None, first=0):
        rows, results = program.cold(ASSETS) if rows is None else rows, []
        for at, depth in enumerate(depths, first):
            rows, result = run_ticks(program, rows, np.arange(ASSETS), history[at], seconds=at, depth=depth)
            results.append(result)
        return rows, np.array(results)

    return play


def of_a_and_b(program, rows):
    fields = program.fields(rows)
    learnt = [name for name in fields if name.startswith(OF_A_AND_B) and "features" not in name]
    return {name: fields[name].copy() for name in learnt}


def test_the_kernels_put_aside_have_no_weight_and_the_others_all_of_it(played):
    _, results = played([2] * 10 + [PRUNED] * 20)
    assert np.isfinite(results["reference_prediction"]).all()
    weights = results["weights"]
    assert (weights[:10, :, :2] > 0).any()
    assert (weights[10:, :, :2] == 0).all()
    assert np.allclose(weights[10:].sum(-1), 1)
    assert np.ptp(weights[10:, :, 2], 0).max() > 0.05, "the others no longer learn which of them is right"


def test_the_kernels_put_aside_keep_what_they_have_learnt(program, played):
    rows, _ = played([2] * 12)
    before = of_a_and_b(program, rows)
    assert any(leaf.any() for leaf in before.values())
    rows, _ = played([PRUNED] * 12, rows, 12)
    after = of_a_and_b(program, rows)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    rows, results = played([2] * 6, rows, 24)
    assert any(not np.array_equal(leaf, before[name]) for name, leaf in of_a_and_b(program, rows).items())
    assert (results["weights"][..., 0] > 0).all()


def test_nothing_is_learnt_from_the_time_between(program, played):
    """The first tick after it has nothing to teach A and B: their forecasts were not out."""
    rows, _ = played([2] * 12 + [PRUNED] * 5)
    before = program.fields(rows)["hilbert.readout.weights"].copy()
    rows, _ = played([2], rows, 17)
    assert np.array_equal(program.fields(rows)["hilbert.readout.weights"], before)


def test_it_is_another_forecast_than_with_all_kernels_and_depth_2_is_the_same_as_ever(played):
    rows, deep = played([2] * 8)
    assert not np.array_equal(played([PRUNED], rows, 8)[1], played([2], rows, 8)[1])
    assert played([2] * 8)[1].tobytes() == deep.tobytes()


def test_the_same_decisions_give_the_same_bytes_alone_and_in_company(program, run_ticks, history, played):
    depths = [3, 2, PRUNED, PRUNED, 2, PRUNED, 3, 2]
    rows, results = played(depths)
    for asset in (0, 63, 69):
        row = program.cold(1)
        for at, depth in enumerate(depths):
            row, result = run_ticks(program, row, [0], history[at, asset : asset + 1], seconds=at, depth=depth)
            assert result.tobytes() == results[at, asset].tobytes()
        assert row.tobytes() == rows[asset].tobytes()


def test_nothing_more_is_compiled_for_it(program, played):
    played([2])
    before = program.compilations
    played([PRUNED, 2, PRUNED])
    assert program.compilations == before
