"""`predictor replay --plot` draws one asset of a file."""

from pathlib import Path

import numpy as np
import pytest

from worker.errors import BadInput
from worker.replayplot import plot_file
from worker.settings import load
from worker.ticksfile import TicksFile


def test_replay_draws_the_asset_that_is_asked_for(tmp_path):
    rows = [f"{asset},{tick * 10**9},{np.sin(tick + ord(asset))}" for tick in range(1, 60) for asset in "ab"]
    (tmp_path / "ticks.csv").write_text("\n".join(["asset,timestamp_ns,value", *rows]))
    settings, file = load({"worker": {"cache_dir": Path(".predictor/cache")}}), TicksFile(tmp_path / "ticks.csv")
    plot_file(settings, file, "b", tmp_path / "b.html")
    assert "<h1>b</h1>" in (tmp_path / "b.html").read_text()
    with pytest.raises(BadInput, match="no tick of 'c'"):
        plot_file(settings, file, "c", tmp_path / "c.html")
    with pytest.raises(BadInput, match="cannot be written"):
        plot_file(settings, file, None, tmp_path / "no" / "folder" / "a.html")
