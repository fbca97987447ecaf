"""Saving and exporting in the background: at once, in order, told truthfully, and usable again."""

import threading

import pytest

from predictor_core.tuning import AsyncMetaOptimizer, ConfigMutationError, OptimizationResult, background, checkpoint


@pytest.fixture
def stuck(monkeypatch):
    """A disk that takes its time until it is let go."""
    go, write = threading.Event(), checkpoint.write

    def slow(*words):
        assert go.wait(30)
        write(*words)

    monkeypatch.setattr(checkpoint, "write", slow)
    yield go
    go.set()


@pytest.fixture
def studied(make_study):
    study = make_study(5, folder=None)
    study.optimize()
    return study


def test_a_save_returns_at_once_and_is_there_when_it_is_said_to_be(studied, make_study, tmp_path, stuck):
    behind = AsyncMetaOptimizer(studied)
    saved = behind.save_study_async(tmp_path / "s.json")
    assert not behind.wait_for_io_completion(0.05)
    stuck.set()
    assert behind.wait_for_io_completion(30)
    assert saved.done() and saved.exception() is None
    again = make_study(5, folder=None)
    again.load_study(tmp_path / "s.json")
    assert again.trials == studied.trials


def test_a_copy_is_of_the_moment_it_was_handed_over(studied, tmp_path, stuck):
    behind = AsyncMetaOptimizer(studied)
    behind.save_study_async(tmp_path / "s.json")
    studied.max_iterations = 6
    studied.optimize()
    stuck.set()
    assert behind.wait_for_io_completion(30)
    assert len(checkpoint.read(tmp_path / "s.json")["trials"]) == 5


def test_newer_copies_take_the_place_of_older_ones_and_few_wait(studied, tmp_path, stuck):
    behind = AsyncMetaOptimizer(studied)
    same = [behind.save_study_async(tmp_path / "s.json") for _ in range(9)]
    others = [behind.save_study_async(tmp_path / f"{k}.json") for k in range(9)]
    assert len(behind._waiting) <= background.PENDING_MAX
    stuck.set()
    assert behind.wait_for_io_completion(30)
    assert all(future.done() for future in same + others)
    assert others[-1].exception() is None
    assert any(future.cancelled() for future in same)
    assert (tmp_path / "8.json").exists()


def test_an_export_is_made_and_a_refusal_told_once(studied, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[predictor]\n")
    behind = AsyncMetaOptimizer(studied)
    good = OptimizationResult.of(studied, {"cusum_k": 0.7})
    done = behind.export_config_async(good, config)
    assert behind.wait_for_io_completion(30)
    assert done.result() == {"cusum_k": [0.5, 0.7]}
    refused = behind.export_config_async(OptimizationResult.of(studied, {"float_precision": 64}), config)
    assert not behind.wait_for_io_completion(30)
    assert isinstance(refused.exception(), ConfigMutationError)
    behind.save_study_async(tmp_path / "s.json")
    assert behind.wait_for_io_completion(30)


def test_nothing_to_wait_for_is_done(studied):
    assert AsyncMetaOptimizer(studied).wait_for_io_completion(0.0)
