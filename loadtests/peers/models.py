"""The predictors that a peer can have: a state and a tick in, the next state and the bytes of a prediction out.

The jitted one is our model in a single lane, the kindest way to call it, which only this bench has. The library is what
anybody else would call, `FunctionalPredictor.step`: it gives the fleet's own bytes. River's are its regression on the
last values inside its conformal band (`conf.RegressionJackknife`), and its Holt-Winters with a band from an
exponentially weighed variance of its errors; their state is the pickled model, which is how river's documentation says
to keep one.
"""

import pickle
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import msgpack
import numpy as np

LAGS = 5
BAND = 0.9
WINDOW = 100  # errors that river's band looks back on
NORMAL_95 = 1.645
FIRST_NS = 1_700_000_000_000_000_000


class Model(Protocol):
    def step(self, state: bytes | None, value: float, time_ns: int, arrival_ns: int) -> tuple[bytes, bytes]: ...


class Jitted:
    """One call of one compiled lane."""

    def __init__(self) -> None:
        from loadtests.single_lane import SingleLane
        from predictor_core import PredictorConfig

        self._lane = SingleLane(PredictorConfig(), Path(".predictor/cache"))
        self.step(None, 0.0, FIRST_NS, FIRST_NS)  # the first call of all takes longer

    def step(self, state: bytes | None, value: float, time_ns: int, arrival_ns: int) -> tuple[bytes, bytes]:
        row = np.frombuffer(state, self._lane.cold.dtype) if state else self._lane.cold
        new = self._lane.step(row, value, time_ns, arrival_ns).tobytes()
        return new, _packed(self._lane.result().tobytes())


class Library:
    """One call of the library, which works on whole blocks of lanes."""

    def __init__(self) -> None:
        from predictor_core import FunctionalPredictor

        self._predictor = FunctionalPredictor(cache_dir=Path(".predictor/cache"))
        self.step(None, 0.0, FIRST_NS, FIRST_NS)

    def step(self, state: bytes | None, value: float, time_ns: int, arrival_ns: int) -> tuple[bytes, bytes]:
        from predictor_core import ProcessState

        before = self._predictor.states_from_bytes(state) if state else self._predictor.init_state()
        after, result = self._predictor.step(before, ProcessState(value, time_ns), arrival_ns)
        band = (result.reference_prediction, result.confidence_lower, result.confidence_upper)
        return after.to_bytes(), _packed([float(each) for each in band])


class Linear:
    """River's linear regression on the last values."""

    def step(self, state: bytes | None, value: float, time_ns: int, arrival_ns: int) -> tuple[bytes, bytes]:
        model, lags = pickle.loads(state) if state else (self._new(), deque(maxlen=LAGS))
        if lags:
            model.learn_one(dict(enumerate(lags)), value)
        lags.append(value)
        band = model.predict_one(dict(enumerate(lags)), with_interval=True)
        return pickle.dumps((model, lags)), _packed([band.center, band.lower, band.upper])

    def _new(self) -> Any:
        from river import conf, linear_model, preprocessing

        regression: Any = preprocessing.StandardScaler() | linear_model.LinearRegression(intercept_lr=0.1)
        return conf.RegressionJackknife(regression, confidence_level=BAND, window_size=WINDOW)


class HoltWinters:
    """River's level and trend."""

    def step(self, state: bytes | None, value: float, time_ns: int, arrival_ns: int) -> tuple[bytes, bytes]:
        model, errors, last = pickle.loads(state) if state else (*self._new(), None)
        if last is not None:
            errors.update(value - last)
        model.learn_one(value)
        forecast = float(model.forecast(1)[0]) if last is not None else value
        half = NORMAL_95 * max(errors.get(), 0.0) ** 0.5
        return pickle.dumps((model, errors, forecast)), _packed([forecast, forecast - half, forecast + half])

    def _new(self) -> Any:
        from river import stats, time_series

        return time_series.HoltWinters(alpha=0.3, beta=0.1), stats.EWVar(fading_factor=0.06)


MODELS: dict[str, type[Model]] = {
    "per-tick": Jitted,
    "per-tick-library": Library,
    "bytewax": Jitted,
    "bytewax-library": Library,
    "river-linear": Linear,
    "river-holt-winters": HoltWinters,
}


def _packed(prediction: Any) -> bytes:
    packed = msgpack.packb(prediction)
    assert packed is not None
    return packed
