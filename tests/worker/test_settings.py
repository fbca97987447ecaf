"""Flag > environment > file > default, and every mistake names the place where it was made."""

import pytest

from scheduler.shedding import SheddingRules
from worker.errors import SettingsError
from worker.settings import Settings, SheddingSettings, load, masked
from worker.toml import toml_text


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("USP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fleet.toml"

    def write(text):
        path.write_text(text)
        return path

    return write


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(file, monkeypatch):
    path = file("[worker]\nlease_ms = 1000\ncapacity = 3\nhttp_port = 1\n")
    monkeypatch.setenv("USP_WORKER__LEASE_MS", "2000")
    monkeypatch.setenv("USP_WORKER__CAPACITY", "4")
    settings = load({"worker": {"lease_ms": 3000, "http_port": None}}, path)
    worker = settings.worker
    assert (worker.lease_ms, worker.capacity, worker.http_port) == (3000, 4, 1)


def test_predictor_settings_of_file_and_environment_are_laid_over_each_other(file, monkeypatch):
    path = file("[predictor]\ncusum_h = 4.0\ncusum_k = 0.4\n")
    monkeypatch.setenv("USP_PREDICTOR__CUSUM_K", "0.3")
    monkeypatch.setenv("USP_PREDICTOR__SINKHORN_COST_TYPE", "huber")
    config = load(None, path).config()
    assert (config.cusum_h, config.cusum_k, config.sinkhorn_cost_type) == (4.0, 0.3, "huber")


def test_the_file_may_be_named_in_the_environment(file, monkeypatch):
    monkeypatch.setenv("USP_CONFIG", str(file("[redis]\nnamespace = 'other'\n")))
    assert load().redis.namespace == "other"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[worker]\nlease_msec = 1\n", "worker.lease_msec in {file} is not a setting: did you mean 'lease_ms'?"),
        ("[wroker]\nlease_ms = 1\n", "wroker in {file} is not a setting: did you mean 'worker'?"),
        ("[worker]\nlease_ms = 1\n", "worker.lease_ms in {file}: should be greater than or equal to 500, got 1"),
        ("[redis]\nnamespace = 'a b'\n", "redis.namespace in {file}: must be 1 to 64 letters"),
        ("[worker\n", "the settings file {file} is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(file, text, told):
    path = file(text)
    with pytest.raises(SettingsError) as error:
        load(None, path)
    assert str(error.value).startswith(told.format(file=path))
    assert "\n" not in str(error.value)


def test_a_mistake_in_the_environment_is_told_by_its_name(monkeypatch):
    monkeypatch.setenv("USP_WORKER__HTTP_PORT", "http")
    with pytest.raises(SettingsError, match="^USP_WORKER__HTTP_PORT: .*got 'http'$"):
        load()


def test_an_unknown_section_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("USP_WORKERS__NAME", "a")
    with pytest.raises(SettingsError, match="USP_WORKERS__NAME in the environment .* did you mean 'worker'"):
        load()


def test_two_mistakes_are_two_lines(monkeypatch):
    monkeypatch.setenv("USP_WORKER__HTTP_PORT", "http")
    monkeypatch.setenv("USP_LOG__LEVEL", "loud")
    with pytest.raises(SettingsError) as error:
        load()
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("given", "told"), [({"cusum_hh": 1}, "did you mean 'cusum_h'"), ({"cusum_h": 300}, r"cusum_h must be .* got 300")]
)
def test_a_wrong_predictor_setting_is_told_by_the_predictor(given, told):
    with pytest.raises(SettingsError, match=told):
        Settings(predictor=given).config()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match="none.toml cannot be read: No such file"):
        load(None, tmp_path / "none.toml")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().worker.lease_ms = 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("rediss://:secret@host", "rediss://:***@host"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown
    assert "secret" not in toml_text(Settings(redis={"url": url}).shown())


def test_what_is_shown_can_be_read_again(file):
    predictor = {"cusum_h": 4.0, "quantile_levels": [0.1, 0.5, 0.9]}
    given = Settings(worker={"name": "w", "cache_dir": ""}, predictor=predictor)
    assert load(None, file(toml_text(given.shown()))).predictor == given.predictor


def test_shedding_goes_by_the_ladders_own_thresholds_unless_told_otherwise():
    assert SheddingSettings().rules((2, 3, 5), 100_000_000) == SheddingRules()


def test_every_threshold_of_the_ladder_can_be_set(file, monkeypatch):
    monkeypatch.setenv("USP_SHEDDING__DEGRADE_RATIO", "0.6")
    monkeypatch.setenv("USP_SHEDDING__ALERT_AFTER_S", "0.5")
    settings = load(None, file("[shedding]\ndegrade_ratio = 0.65\nrecover_observations = 7\njitter_degrade = 0.55\n"))
    rules = settings.shedding.rules((2, 3), 5)
    assert (rules.depths, rules.nyquist_ns, rules.alert_after_ns) == ((2, 3), 5, 500_000_000)
    assert (rules.degrade_ratio, rules.recover_observations, rules.jitter_degrade) == (0.6, 7, 0.55)
    from_elsewhere = {"depths", "nyquist_ns", "alert_after_ns"}
    assert SheddingRules.__dataclass_fields__.keys() - from_elsewhere <= settings.shown()["shedding"].keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("degrade_ratio = 0", "shedding.degrade_ratio in {file}: should be greater than 0, got 0"),
        ("smoothing = 2", "shedding.smoothing in {file}: should be less than or equal to 1, got 2"),
        ("degrade_ration = 1", "shedding.degrade_ration in {file} is not a setting: did you mean 'degrade_ratio'?"),
        ("recover_ratio = 0.7", "shedding: recover_ratio must be below degrade_ratio, got 0.7"),
        ("critical_ratio = 0.1", "shedding: recover_ratio <= degrade_ratio <= critical_ratio must be positive"),
        ("jitter_recover = 0.7", "shedding: jitter_recover <= jitter_degrade <= jitter_violation must be positive"),
        ("jitter_window = 5", "shedding: jitter_window must be at least observations_min = 10, got 5"),
    ],
)
def test_thresholds_that_do_not_fit_are_told_in_one_line(file, text, told):
    path = file(f"[shedding]\n{text}\n")
    with pytest.raises(SettingsError) as error:
        load(None, path)
    assert str(error.value).startswith(told.format(file=path))
    assert "\n" not in str(error.value)
