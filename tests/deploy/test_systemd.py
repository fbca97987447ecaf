"""The unit for machines without containers, and the file of settings beside it."""

import configparser
import shutil
import subprocess

import pytest

from tests.deploy.deployed import DEPLOY, PREDICTOR
from tests.deploy.test_runbooks import understood
from worker.exits import FLEET, USAGE
from worker.settings import load

UNIT = DEPLOY / "systemd" / "predictor-worker@.service"
EXAMPLE = (DEPLOY / "systemd" / "worker.env.example").read_text()


class Repeated(dict):
    """A key that is given again keeps what it had."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            value = self[key] + value
        super().__setitem__(key, value)


def service() -> dict[str, str]:
    parser = configparser.RawConfigParser(dict_type=Repeated, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_every_variable_of_the_example_is_a_setting(monkeypatch):
    given = variables(EXAMPLE)
    assert len(given) > 5
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.redis.namespace == given["USP_REDIS__NAMESPACE"]
    settings.config()


def test_a_variable_that_is_none_is_found(monkeypatch):
    monkeypatch.setenv("USP_WORKER__LEASE", "5")
    with pytest.raises(Exception, match="is not a setting"):
        load()


def test_the_unit_runs_a_command_and_gives_it_settings(monkeypatch):
    program, *words = service()["ExecStart"].split()
    assert program == "/opt/predictor/bin/predictor"
    understood(words)
    for line in service()["Environment"].splitlines():
        name, value = line.split("=", 1)
        monkeypatch.setenv(name, value.replace("%i", "1").replace("%H", "host"))
    monkeypatch.delenv("USP_CONFIG")
    assert load().worker.http_port == 9101 and load().worker.name == "host-1"


def test_a_wrong_setting_and_a_foreign_fleet_are_not_tried_again():
    final = {int(code) for code in service()["RestartPreventExitStatus"].split()}
    assert service()["Restart"] == "always" and final == {USAGE, FLEET}


def test_systemd_accepts_it(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the unit was read without it")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/predictor/bin/predictor", str(PREDICTOR)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
