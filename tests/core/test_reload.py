"""A config file that changes is taken over between two ticks, or refused without any harm."""

import numpy as np
import pytest

from predictor_core import ConfigFile, PredictorConfig, ProcessState
from predictor_core.reload import read_config

START = 1_700_000_000 * 10**9


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "predictor.toml"
    made.write_text("[predictor]\ncusum_h = 5.0\n")
    return made


@pytest.fixture
def running(make_universal, path):
    made = make_universal(read_config(path))
    for index in range(20):
        made.step(ProcessState(np.sin(index), START + index), START + index)
    return made


def test_an_unchanged_file_does_nothing(running, path):
    file = ConfigFile(path)
    path.write_text(path.read_text())
    assert file.poll(running) is None


def test_numbers_swap_and_the_state_stays(running, path):
    file, before = ConfigFile(path), running.state
    path.write_text("[predictor]\ncusum_h = 7.0\n[worker]\nlease_ms = 1000\n")
    reloaded = file.poll(running)
    assert reloaded.taken and reloaded.state_kept and reloaded.problem is None
    assert running.config.cusum_h == 7.0 and running.state == before
    assert file.poll(running) is None


@pytest.mark.parametrize(
    "text, why",
    [
        ("[predictor\n", "not a usable config"),
        ("[predictor]\ncusum_hh = 5.0\n", "did you mean 'cusum_h'"),
        ("[predictor]\ncusum_h = 500.0\n", "cusum_h must be"),
        ("[predictor]\nconfidence_level = 0.9\n", "confidence_level cannot change without losing the state"),
    ],
)
def test_a_file_that_cannot_be_used_keeps_the_old_configuration_and_says_so(running, path, text, why, caplog):
    file, before = ConfigFile(path), running.state
    path.write_text(text)
    reloaded = file.poll(running)
    assert not reloaded.taken and why in reloaded.problem and "old configuration stays" in reloaded.problem
    assert "config_refused" in caplog.messages
    assert running.state == before and running.config == PredictorConfig()
    assert file.poll(running) is None, "told once"


def test_a_file_that_vanishes_keeps_the_old_configuration(running, path):
    file = ConfigFile(path)
    path.unlink()
    assert "cannot be read" in file.poll(running).problem
    path.write_text("[predictor]\ncusum_k = 0.7\n")
    assert file.poll(running).taken and running.config.cusum_k == 0.7


class Recorder:
    """A predictor that takes every config."""

    config = PredictorConfig()
    asked: tuple = ()

    def reconfigure(self, config, *, allow_restart=False):
        self.asked = (config.wtmm_buffer_size, allow_restart)
        return False


def test_a_restart_is_asked_for_only_where_it_is_allowed(path):
    file, recorder = ConfigFile(path, allow_restart=True), Recorder()
    path.write_text("[predictor]\nwtmm_buffer_size = 256\n")
    reloaded = file.poll(recorder)
    assert reloaded.taken and not reloaded.state_kept and recorder.asked == (256, True)
