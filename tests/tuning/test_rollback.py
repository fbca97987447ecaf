"""A change that makes the live loss worse is noticed, once; one that does not stands."""

import numpy as np
import pytest

from predictor_core.tuning import LossWatch, Watch


@pytest.fixture
def losses():
    return np.random.default_rng(0).exponential(1.0, 4000)


def feed(watch, losses):
    return [watch.observe(loss) for loss in losses]


def test_a_change_that_doubles_the_loss_is_taken_back_once(losses):
    watch = LossWatch()
    feed(watch, losses[:600])
    watch.changed()
    said = feed(watch, 2 * losses[600:2000])
    assert said.count(Watch.WORSE) == 1
    assert said.index(Watch.WORSE) < 100


def test_a_change_that_does_nothing_stands(losses):
    watch = LossWatch()
    feed(watch, losses[:600])
    watch.changed()
    said = feed(watch, losses[600:])
    assert Watch.WORSE not in said
    assert said.count(Watch.WATCHING) == 499


def test_without_a_past_nothing_is_watched():
    watch = LossWatch()
    watch.changed()
    assert feed(watch, [1.0] * 10 + [100.0] * 600).count(Watch.WORSE) == 0


def test_a_tick_without_a_forecast_does_not_count(losses):
    watch = LossWatch(window=100, least=10)
    feed(watch, losses[:100])
    watch.changed()
    assert feed(watch, [float("nan")] * 500)[-1] is Watch.WATCHING


def test_a_later_change_is_watched_again(losses):
    watch = LossWatch(window=200)
    for start in (0, 1000):
        feed(watch, losses[start : start + 300])
        watch.changed()
        assert Watch.WORSE in feed(watch, 3 * losses[start + 300 : start + 500])


@pytest.mark.parametrize("bad", [{"tolerance": 0}, {"least": 0}, {"least": 9, "window": 8}])
def test_a_watch_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match="1 <= least <= window"):
        LossWatch(**bad)
