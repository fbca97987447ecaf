"""A configuration file changes whole or not at all, within limits, on record, and can be put back."""

import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta

import pytest

from predictor_core.config import PredictorConfig
from predictor_core.reload import ConfigFile, read_config
from predictor_core.tuning import ConfigMutationError, MutationLimits, OptimizationResult, mutation, roll_back
from predictor_core.tuning.lock import locked
from worker.tuning.take import check_settings

TEXT = """# our fleet
[redis]
url = "redis://:secret@host:1/0"   # do not touch

[predictor]
cusum_k = 0.5      # the slack
outlier_bound = 12.0

[log]
level = "info"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


def result(**params):
    return OptimizationResult(
        study_name="spring",
        tier="fast",
        best_params=params,
        best_objective=0.98,
        total_iterations=50,
        early_stopped=False,
        convergence_delta=1e-4,
    )


def test_an_export_changes_its_values_and_leaves_all_else_as_it_was(config):
    changes = result(cusum_k=0.7, scale_rate=0.001).export_to_toml(config, check=check_settings)
    assert changes == {"cusum_k": [0.5, 0.7], "scale_rate": [0.002, 0.001]}
    wanted = TEXT.replace("cusum_k = 0.5 ", "cusum_k = 0.7 ").replace("12.0\n", "12.0\nscale_rate = 0.001\n")
    assert config.read_text() == wanted


def test_an_export_of_what_is_there_already_writes_nothing(config):
    assert result(cusum_k=0.5).export_to_toml(config) == {}
    assert config.read_text() == TEXT
    assert not mutation.audit_of(config).exists()


def test_the_audit_holds_old_and_new_values_and_the_sums_of_both_files(config):
    result(cusum_k=0.7).export_to_toml(config)
    (entry,) = mutation.audit(config)
    assert entry["changes"] == {"cusum_k": [0.5, 0.7]}
    assert (entry["study"], entry["event"]) == ("spring", "mutation")
    assert entry["before"] != entry["after"]


def test_a_backup_is_what_was_there_and_a_rollback_puts_it_back(config):
    result(cusum_k=0.7, scale_rate=0.001).export_to_toml(config)
    assert mutation.backup_of(config).read_text() == TEXT
    assert len(list(config.parent.glob("config.toml.*Z.bak"))) == 1
    config.write_text(config.read_text().replace("info", "debug"))  # an edit by hand since then
    assert roll_back(config, {"by": "test"}) == {"cusum_k": [0.7, 0.5], "scale_rate": [0.001, 0.002]}
    assert read_config(config) == PredictorConfig(outlier_bound=12.0)
    assert tomllib.loads(config.read_text())["log"] == {"level": "debug"}
    assert mutation.audit(config)[-1]["event"] == "rollback"
    assert roll_back(config, {}) == {}


def test_backups_do_not_pile_up(config):
    for turn in range(mutation.BACKUPS_MAX + 5):
        mutation.change(config, {"cusum_k": 0.5 + 0.1 * (turn % 2 == 0)}, {}, limits=MutationLimits(per_hour=1000))
    assert len(list(config.parent.glob("config.toml.*Z.bak"))) == mutation.BACKUPS_MAX


def test_a_predictor_takes_an_exported_file_over_between_two_ticks(config):
    class Taker:
        config = PredictorConfig()

        def reconfigure(self, config, *, allow_restart=False):
            self.config = config
            return True

    watched, taker = ConfigFile(config), Taker()
    result(cusum_k=0.7).export_to_toml(config)
    reloaded = watched.poll(taker)
    assert reloaded is not None and reloaded.taken and reloaded.state_kept
    assert taker.config.cusum_k == 0.7


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"float_precision": 64}, "float_precision must not be changed"),
        ({"snapshot_path": "/tmp/x"}, "snapshot_path must not be changed"),
        ({"cusum_grace_period_steps": 3}, "'cusum_grace_period_steps' is not a setting of the predictor"),
        ({"cusum_k": 99.0}, "cusum_k may not go from 0.5 to 99.0 in one step"),
        ({"learning_rate": 0.1}, r"learning_rate may not go from 0.01 to 0.1 in one step|^$"),
        ({"memory_size": 128}, "memory_size may not go from 384 to 128"),
        ({"outlier_bound": 100.0}, "outlier_bound may not go from 12.0 to 100.0"),
        ({"entropy_window_bounds_min": 15, "entropy_window_bounds_max": 14}, "may not go from 500 to 14"),
    ],
)
def test_what_must_not_change_does_not(config, params, told):
    if params == {"learning_rate": 0.1}:  # just within: half of two decades is one
        assert result(**params).export_to_toml(config)
        return
    with pytest.raises(ConfigMutationError, match=told):
        result(**params).export_to_toml(config)
    assert config.read_text() == TEXT


def test_ranges_and_relations_are_those_of_the_product(config):
    config.write_text(TEXT.replace("12.0", "1.5"))
    with pytest.raises(ConfigMutationError, match=r"\[predictor\] outlier_bound must be a number in \[1.0"):
        result(outlier_bound=0.9).export_to_toml(config)
    config.write_text(TEXT + "levle = 'info'\n")
    with pytest.raises(ConfigMutationError, match="was not changed"):
        result(cusum_k=0.7).export_to_toml(config, check=check_settings)
    assert "cusum_k = 0.5" in config.read_text()


@pytest.mark.parametrize(
    "text",
    ["predictor = { cusum_k = 0.5 }\n", "predictor.cusum_k = 0.5\n", "[predictor]\n'cusum_k' = 0.5\n", "[predictor\n"],
)
def test_a_file_that_cannot_be_followed_is_left_alone(config, text):
    config.write_text(text)
    with pytest.raises(ConfigMutationError, match="config.toml"):
        result(cusum_k=0.7).export_to_toml(config)
    assert config.read_text() == text


@pytest.mark.parametrize("text", ["", "[log]\nlevel = 'info'", "[predictor]", "\n\n[predictor] # x\n\n\n[log]\n"])
def test_a_file_without_the_section_or_the_value_gets_it(config, text):
    config.write_text(text)
    result(cusum_k=0.7).export_to_toml(config)
    assert read_config(config).cusum_k == 0.7


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no configuration file at"):
        result(cusum_k=0.7).export_to_toml(tmp_path / "none.toml")


def test_a_folder_that_is_none_is_named(config):
    with pytest.raises(ConfigMutationError, match="was not changed: "):
        result(cusum_k=0.7).export_to_toml(config / "inside.toml")


def test_changes_are_counted_by_the_hour(config):
    now, limits = datetime(2026, 1, 1, tzinfo=UTC), MutationLimits(per_hour=2)
    for turn, value in enumerate((0.6, 0.7)):
        mutation.change(config, {"cusum_k": value}, {}, limits=limits, now=now + timedelta(minutes=turn))
    with pytest.raises(ConfigMutationError, match="changed 2 times in the last hour"):
        mutation.change(config, {"cusum_k": 0.8}, {}, limits=limits, now=now + timedelta(minutes=59))
    assert mutation.change(config, {"cusum_k": 0.8}, {}, limits=limits, now=now + timedelta(minutes=62))


def test_two_at_once_is_one_too_many_and_a_dead_one_is_none(config):
    with locked(config), pytest.raises(ConfigMutationError, match="is being changed by another process"):
        result(cusum_k=0.7).export_to_toml(config)
    script = (
        "import fcntl, os, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print(flush=True); time.sleep(60)"
    )
    beside = config.with_name(".config.toml.lock")
    holder = subprocess.Popen([sys.executable, "-c", script, beside], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        holder.stdout.readline()
        with pytest.raises(ConfigMutationError, match="another process"):
            result(cusum_k=0.7).export_to_toml(config)
        holder.kill()
        holder.wait()
    assert result(cusum_k=0.7).export_to_toml(config)


def test_a_folder_that_cannot_be_written_leaves_the_file(config, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        result(cusum_k=0.7).export_to_toml(config)
    assert config.read_text() == TEXT
    assert not list(config.parent.glob("*.tmp"))


@pytest.mark.parametrize("bad", [{"tier": "slow"}, {"best_objective": float("nan")}, {"extra": 1}])
def test_a_result_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError):
        OptimizationResult.model_validate({**result().model_dump(), **bad})
