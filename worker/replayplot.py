"""One asset of a file of ticks, replayed and drawn."""

from pathlib import Path

import numpy as np

from predictor_core import FunctionalPredictor
from worker.errors import BadInput
from worker.settings import Settings
from worker.ticksfile import TicksFile


def plot_file(settings: Settings, file: TicksFile, asset: str | None, path: Path) -> None:
    """Draws the named asset, or the one that comes first; at the depth of the config."""
    if not len(file):
        raise BadInput("there is nothing to draw: the file has no ticks")
    asset = asset if asset is not None else file.assets[0]
    mine = np.array([name == asset for name in file.assets])
    if not mine.any():
        raise BadInput(f"there is nothing to draw: no tick of {asset!r} in the file")
    predictor = FunctionalPredictor(settings.config(), cache_dir=settings.worker.cache_dir)
    values, times_ns, arrivals_ns = (column[mine] for column in (file.values, file.times_ns, file.arrivals_ns))
    _, results = predictor.replay(predictor.init_state(), values[None], times_ns, arrivals_ns)
    try:
        results[0].plot(values, times_ns, asset).save(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
