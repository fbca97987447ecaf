"""Which ticks of an asset judge a candidate, and which are kept for later.

    |  burn-in  |  fold 2 . fold 0 . fold 1 . fold 2 . ...  | . |  validation  | . |  held back  |
       250 ticks               the search                      the last word        never seen

Walk-forward without refitting: every forecast is made from the past alone, so one run over a history serves all folds.
The dots are embargoes: ticks that nobody scores, because those on either side know the same past. Stretches of the
search are dealt out by their volatility, so that each fold has its share of calm and of storm.
"""

from dataclasses import dataclass

import numpy as np

from .history import BIN, History

BURN_IN, VALIDATION, HELD_BACK = -1, -2, -3  # in place of a fold's number
EMBARGO = BURN_IN
TICKS_MIN = 1000


@dataclass(frozen=True)
class Split:
    """How a history is cut, in shares of what follows the burn-in."""

    folds: int = 5
    search: float = 0.45
    validation: float = 0.25
    burn_in: int = 250  # ticks
    embargo: int = 50  # ticks

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}.")
        if min(self.search, self.validation) <= 0 or self.search + self.validation >= 1:
            raise ValueError(
                f"search and validation must be shares that leave some to hold back, got {self.search} and "
                f"{self.validation}."
            )
        if self.burn_in < BIN or self.embargo < 0:
            raise ValueError(f"burn_in must be at least {BIN} ticks and embargo at least 0.")


def deal(history: History, split: Split) -> np.ndarray:
    """The fold of every bin of every asset: int [assets, bins]."""
    short = [name for name, n in zip(history.assets, history.lengths, strict=True) if n < TICKS_MIN]
    if short or not history.assets:
        raise ValueError(f"tuning needs {TICKS_MIN} ticks of every asset; too few: {short or 'no asset at all'}.")
    volatility = history.volatility()
    dealt = np.full(volatility.shape, BURN_IN)
    for row, length, storm in zip(dealt, history.lengths, volatility, strict=True):
        _deal_asset(row[: length // BIN], storm, split)
    return dealt


def _deal_asset(row: np.ndarray, volatility: np.ndarray, split: Split) -> None:
    burn, embargo = -(-split.burn_in // BIN), -(-split.embargo // BIN)
    left = len(row) - burn
    searched = burn + round(split.search * left)
    validated = searched + max(1, round(split.validation * left))
    row[searched + embargo : validated] = VALIDATION
    row[validated + embargo :] = HELD_BACK
    stretches = _stretches(burn, searched, split.folds, embargo)
    calm_first = sorted(stretches, key=lambda part: float(volatility[part].mean()))
    folds = min(split.folds, len(stretches))
    for at, part in enumerate(calm_first):
        turn, place = divmod(at, folds)
        row[part] = place if turn % 2 == 0 else folds - 1 - place


def _stretches(start: int, stop: int, folds: int, embargo: int) -> list[slice]:
    """About three stretches a fold, an embargo before each but the first; one bin each where there are few."""
    length = max(1, (stop - start) // (3 * folds))
    pause = embargo if length > 2 * embargo else 0
    edges = list(range(start, stop - length + 1, length)) or [start]
    return [slice(edge + (pause if edge > start else 0), edge + length) for edge in edges]
