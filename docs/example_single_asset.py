"""Three hundred years of sunspots, one value a year: a predictor of one asset from its first start to its picture.

    python docs/example_single_asset.py [FOLDER]

The series is real: the yearly Wolf sunspot numbers 1700 to 2008 of the National Geophysical Data Center (public
domain), in sunspots.csv beside this file. Nothing is tuned to it. 200 years are history; the rest come one by one.
"""

import csv
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from predictor_core import PredictorConfig, ProcessState, SnapshotPlan, UniversalPredictor
from predictor_core.observation import nanoseconds

HERE = Path(__file__).parent
HISTORY_YEARS = 200


def main(folder: Path) -> None:
    years, values = read(HERE / "sunspots.csv")
    times_ns = [nanoseconds(datetime(year, 12, 31, tzinfo=UTC)) for year in years]

    # A tick a year is not stale: it arrives when it happens.
    predictor = UniversalPredictor(
        PredictorConfig(),
        asset="sunspots",
        cache_dir=folder / "cache",
        snapshots=SnapshotPlan(folder / "snapshots", every=50),
    )
    stable = predictor.fit_history(values[:HISTORY_YEARS], times_ns[:HISTORY_YEARS])
    print(f"{years[HISTORY_YEARS - 1]}: {'stable' if stable else 'not stable yet'} after {HISTORY_YEARS} years")

    errors, naive, inside = [], [], 0
    forecast = predictor.predict_next()
    for index in range(HISTORY_YEARS, len(years)):
        value = values[index]
        errors.append(abs(value - forecast.reference_prediction))
        naive.append(abs(value - values[index - 1]))
        inside += bool(forecast.confidence_lower <= value <= forecast.confidence_upper)
        forecast = predictor.step(ProcessState(value, times_ns[index]), arrival_ns=times_ns[index])
        if forecast.telemetry.regime_change_detected:
            print(f"{years[index]}: the errors changed")

    print(f"mean error {np.mean(errors):.1f}; taking the last value instead: {np.mean(naive):.1f}")
    print(f"{inside} of {len(errors)} values lay inside the 95 % band")
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip("ABCD", forecast.telemetry.weights, strict=True))
    print(f"weights of the kernels at the end: {weights}")
    low, high = forecast.confidence_lower, forecast.confidence_upper
    print(f"2009 will be {forecast.reference_prediction:.1f}, between {low:.1f} and {high:.1f}")

    predictor.plot().save(folder / "sunspots.html")

    # The same state, in another predictor, says the same.
    predictor.flush()
    predictor.save_snapshot(folder / "sunspots.msgpack")
    again = UniversalPredictor.from_snapshot(folder / "sunspots.msgpack", cache_dir=folder / "cache")
    assert again.predict_next().reference_prediction == forecast.reference_prediction
    predictor.close()


def read(path: Path) -> tuple[list[int], list[float]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [int(row["year"]) for row in rows], [float(row["sunspots"]) for row in rows]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".predictor"))
