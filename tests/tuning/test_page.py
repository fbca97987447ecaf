"""The page on tuning says what is there."""

import re
from pathlib import Path

from typer.testing import CliRunner

from loadtests.tuning import main as measure
from predictor_core.tuning import DEEP, FAST, LossWatch
from worker.cli import app

PAGE = (Path(__file__).parents[2] / "docs/tuning.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs():
    known = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/tuning.md", "exec"), known)
    assert callable(known["tuned"])
    known["after_each_tick"](LossWatch(), 1.0, Path("none.toml"))


def test_the_options_of_the_page_exist():
    told = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "200"}).output
    named = set(re.findall(r"predictor tune[^`\n]*", PAGE))
    flags = {flag for line in named for flag in re.findall(r"--[a-z-]+", line)} | {"--per", "--metric", "--resume"}
    assert flags and all(flag in told for flag in flags)
    assert callable(measure)


def test_the_knobs_of_the_page_are_those_of_the_search():
    fast, deep = (re.search(rf"\| {tier} \|(.*?)\|", PAGE)[1] for tier in ("fast", "deep"))
    assert set(re.findall(r"`(\w+)`", fast)) == set(FAST)
    assert set(re.findall(r"`(\w+)`", deep)) == set(DEEP) - set(FAST)
