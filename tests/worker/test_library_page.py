"""What the page on the library shows works, and so does its example."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder that knows the compiled programs of this checkout."""
    (ROOT / ".predictor" / "cache").mkdir(parents=True, exist_ok=True)
    (tmp_path / ".predictor").symlink_to(ROOT / ".predictor")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_of_the_page_runs_in_order(workplace):
    page = (ROOT / "docs" / "library.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) > 5
    names = {}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert (workplace / "eurusd.msgpack").exists()


def test_the_example_on_sunspots_runs_and_beats_the_last_value(workplace, monkeypatch, capsys):
    (workplace / "out").mkdir()
    (workplace / "out" / "cache").symlink_to(ROOT / ".predictor" / "cache")
    monkeypatch.setattr(sys, "argv", ["example", "out"])
    runpy.run_path(str(ROOT / "docs" / "example_single_asset.py"), run_name="__main__")
    told = capsys.readouterr().out
    error, naive = map(float, re.search(r"mean error ([\d.]+); taking the last value instead: ([\d.]+)", told).groups())
    assert error < naive, told
    inside, of = map(int, re.search(r"(\d+) of (\d+) values", told).groups())
    assert inside / of > 0.8, told
    assert (workplace / "out" / "sunspots.msgpack").exists() and (workplace / "out" / "sunspots.html").exists()


def test_the_page_on_the_interface_is_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["docs/make_api.py", "--check"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "docs" / "make_api.py"), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("package", ["predictor_core", "scheduler", "state_store", "worker"])
def test_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").exists()


def test_the_newest_change_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest.group(1) == version and re.fullmatch(r"\d+\.\d+\.\d+", version)
