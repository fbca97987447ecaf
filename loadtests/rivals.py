"""What users would have used instead, on real series that nobody tuned for: python -m loadtests.rivals [--json]

The series are those of 500 values and more that come with river (the extra `peers`); the predictor was neither made nor
tuned with any of them. Prices are taken as logarithms. Every rival sees a value, forecasts the next one and learns from
it, as the predictor does; a forecast of one number gets a normal band, from an exponentially weighed variance of its
errors. Some need moves of about one, so all get them divided by their mean size. The first 250 values are not scored.
The table gives our CRPS over the rival's: geometric means, and the series on which we do worst.
"""

import argparse
import json
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from worker.errors import BadInput

from .accuracy import BURN, around, crps, forecasts, geometric_mean, random_walk, table

LAGS = 5
FORGETTING = 0.998
PRIOR = 100.0  # of a regression's covariance


def liquid() -> dict[str, np.ndarray]:
    """Prices at which anybody could have traded."""
    from river import datasets
    from river.drift import datasets as more

    returns = [row for row, _ in datasets.SP500Stocks()]
    stocks = {str(name): np.cumsum([np.log1p(row[name] / 100) for row in returns]) for name in returns[0]}
    return stocks | {
        "apple": np.log([price["Close"] for _, price in more.Apple()]),
        "bitcoin": np.log([price for _, price in more.Bitcoin()]),
        "brent": np.log([price for _, price in more.BrentSpotPrice()]),
    }


def measured() -> dict[str, np.ndarray]:
    """What an instrument or a poll says."""
    from river import datasets
    from river.drift import datasets as more

    room = [values for _, values in more.Occupancy()]
    return {
        "water flow": np.array([flow for _, flow in datasets.WaterFlow()]),
        "approval": np.array([share for _, share in datasets.TrumpApproval()]),
        **{f"room, {name}": np.array([values[name] for values in room]) for name in room[0]},
    }


def scaled(levels: np.ndarray) -> np.ndarray:
    """From nought, with moves of about one while nothing is scored yet."""
    return (levels - levels[0]) / np.abs(np.diff(levels[:BURN])).mean()


def regression(levels: np.ndarray) -> np.ndarray:
    """Forecasts by an autoregression on the last moves, by recursive least squares that forget."""
    moves = np.diff(levels, prepend=levels[0])
    weights, covariance = np.zeros(LAGS + 1), PRIOR * np.eye(LAGS + 1)
    centers, lags = np.full(len(levels), np.nan), np.zeros(LAGS + 1)
    lags[-1] = 1.0
    for t in range(1, len(levels)):
        gain = covariance @ lags / (FORGETTING + lags @ covariance @ lags)
        weights = weights + gain * (moves[t] - weights @ lags)
        covariance = (covariance - np.outer(gain, lags @ covariance)) / FORGETTING
        lags = np.concatenate([[moves[t]], lags[: LAGS - 1], [1.0]])
        if t + 1 < len(levels):
            centers[t + 1] = levels[t] + weights @ lags
    return centers


def of_moves(make: Callable[[], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """River's regressions, told the last moves."""

    def centers(levels: np.ndarray) -> np.ndarray:
        model, made = make(), np.full(len(levels), np.nan)
        lags: deque[float] = deque([0.0] * LAGS, maxlen=LAGS)
        for t in range(1, len(levels)):
            model.learn_one(dict(enumerate(lags)), float(levels[t] - levels[t - 1]))
            lags.appendleft(float(levels[t] - levels[t - 1]))
            made[t + 1 : t + 2] = levels[t] + model.predict_one(dict(enumerate(lags)))
        return made

    return centers


def holt_winters(levels: np.ndarray) -> np.ndarray:
    """River's level and trend."""
    from river import time_series

    model, made = time_series.HoltWinters(alpha=0.3, beta=0.1), np.full(len(levels), np.nan)
    for t, level in enumerate(levels.tolist()):
        model.learn_one(level)
        if t:
            made[t + 1 : t + 2] = model.forecast(1)[0]
    return made


def rivals() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """By name: quantiles of every value, made from the values before it."""
    try:
        from river import forest, linear_model, preprocessing
    except ImportError:
        raise BadInput("rivals needs river: install universal-predictor[peers]") from None

    def linear() -> Any:
        return preprocessing.StandardScaler() | linear_model.LinearRegression()

    forecasters = {
        "autoregression, least squares": regression,
        "river: linear regression": of_moves(linear),
        "river: Holt-Winters": holt_winters,
        "river: adaptive random forest": of_moves(lambda: forest.ARFRegressor(seed=1)),
    }
    banded = {
        name: lambda levels, forecast=forecast: around(forecast(levels), levels)
        for name, forecast in forecasters.items()
    }
    return {"random walk": random_walk, **banded}


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Our CRPS over each rival's, by group and series."""
    theirs = rivals()
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in theirs}
    for group, raw in {"liquid": liquid(), "measured": measured()}.items():
        series = {name: scaled(levels) for name, levels in raw.items()}
        ours = forecasts(series)
        for name, rival in theirs.items():
            found[name][group] = {
                each: crps(ours[each], levels) / crps(rival(levels), levels) for each, levels in series.items()
            }
    return found


def shown(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """For a person: means by group, and the series on which we do worst."""
    sizes = {group: len(ratios) for group, ratios in found["random walk"].items()}
    titles = ["our CRPS over that of", *(f"{group}, {size} series" for group, size in sizes.items()), "worst series"]
    rows = []
    for name, by_group in found.items():
        means = [geometric_mean(list(ratios.values())) for ratios in by_group.values()]
        worst, where = max((ratio, each) for ratios in by_group.values() for each, ratio in ratios.items())
        rows.append([name, *(f"{mean:.3f}" for mean in means), f"{worst:.3f} ({where})"])
    return table(titles, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON, with every series")
    arguments = parser.parse_args()
    try:
        found = measure()
    except BadInput as error:
        parser.error(str(error))
    print(json.dumps(found) if arguments.json else shown(found))


if __name__ == "__main__":
    main()
