"""UniversalPredictor: one asset in one process, with its state in hand and its files beside it.

    with UniversalPredictor(PredictorConfig(), snapshots=SnapshotPlan("snapshots")) as predictor:
        predictor.fit_history(values)
        result = predictor.step(ProcessState(magnitude=1.0, timestamp_utc=now))

Around the same compiled program that a fleet runs, so the same ticks give the same bytes. What a fleet's worker does
with Redis this does with files: snapshots, written in the background, and a forensic dump when an emergency begins. Not
to be shared between threads without a lock; `worker.embedded.PredictorService` has one.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import dump, rotation, snapshot, warmup, writer
from .alerts import Alerts
from .charts import Page, page
from .config import PredictorConfig
from .dump import DumpGate, DumpPlan, Recent
from .errors import ConfigRefused, NoSnapshot, NothingSeen, WrongLayout, WrongShape
from .functional import States, prediction_result
from .graph import Program
from .observation import Observed, nanoseconds, numbers
from .result import Event, PredictionResult, RejectReason
from .rotation import SnapshotPlan
from .snapshot import Encoder
from .writer import Writer, WriterStatus

ROW = np.zeros(1, np.int32)

log = logging.getLogger(__name__)


class Memory(NamedTuple):
    """The state and the forecast that is out: they change together or not at all."""

    rows: np.ndarray  # [1, words]
    last: np.ndarray | None  # the record of the last accepted tick


class UniversalPredictor:
    """Predicts the next value of one asset."""

    def __init__(
        self,
        config: PredictorConfig | None = None,
        *,
        asset: str = "asset",
        clock: Callable[[], int] = time.time_ns,
        cache_dir: Path | str | None = None,
        snapshots: SnapshotPlan | None = None,
        dumps: DumpPlan | None = None,
    ) -> None:
        """Compiles the program, or reads it from `cache_dir`. `clock` says when a tick arrived, in ns since 1970."""
        _check_kind("config", config, PredictorConfig)
        _check_kind("snapshots", snapshots, SnapshotPlan)
        _check_kind("dumps", dumps, DumpPlan)
        self.asset = asset
        self._clock, self._cache_dir = clock, cache_dir
        self._plan, self._dumps = snapshots, dumps
        self._names = rotation.Names(snapshots.folder) if snapshots else None
        self._writer = Writer()
        self._start(config if config is not None else PredictorConfig())

    @classmethod
    def from_snapshot(cls, path: Path | str, **options: Any) -> "UniversalPredictor":
        """A predictor with the config and the state of a snapshot, or of the newest one that is whole in a folder."""

        def open_one(path: Path) -> "UniversalPredictor":
            predictor = cls(snapshot.config_in(_read(path), path), **options)
            predictor._load(path)
            return predictor

        return _each(Path(path), open_one)

    def fit_history(self, history: Sequence[float], timestamps_ns: Sequence[int] | None = None) -> bool:
        """Takes a history in at once. True if at its end Sinkhorn converged and neither CUSUM has gone far.

        "Far" is `cusum_h` deviations of the errors, so that the answer does not depend on the data's unit. Without
        timestamps the values are one `signal_sampling_interval` apart, and the first live tick starts the clock anew.
        Raises ValueError for fewer finite values than `wtmm_buffer_size`, and Diverged, which is a RuntimeError, for
        numbers that do not stay finite; the state is then what it was before.
        """
        timed = timestamps_ns is not None
        values, times_ns = warmup.usable(history, timestamps_ns, self.config)
        before = self._memory.rows if timed else warmup.without_clock(self._program, self._memory.rows)
        rows, records = self._run(before, values, times_ns, times_ns)
        accepted = records["rejected"] == RejectReason.accepted
        warmup.check_enough(int(accepted.sum()), self.config)
        last = records[accepted][-1].copy()
        warmup.check_finite(self._program, rows, last)
        self._remember(Memory(rows if timed else warmup.without_clock(self._program, rows), last))
        for value, record in zip(values[accepted], records[accepted], strict=True):
            self._recent.add(float(value), record)
        stable = warmup.is_stable(last, self.config.cusum_h)
        if not stable:
            log.warning("cold_start_unstable", extra={"asset": self.asset, "cusum_drift": float(last["cusum_drift"])})
        return stable

    def step(self, observation: Observed, arrival_ns: int | None = None) -> PredictionResult:
        """Takes one value in and forecasts the next.

        A tick arrives when the clock says so, unless `arrival_ns` does. One that is late, not finite or from the future
        changes nothing: the last valid result comes back, and its `rejected` says why. A value more than `sigma_bound`
        deviations out is not learnt from either, and has the event `DomainError`.
        """
        value, time_ns = numbers(observation)
        arrival_ns = self._clock() if arrival_ns is None else nanoseconds(arrival_ns)
        rows, records = self._run(self._memory.rows, [value], [time_ns], [arrival_ns])
        record = records[0]
        if record["rejected"] != RejectReason.accepted:
            return self._refused(record)
        self._memory, self._refusing = Memory(rows, record), RejectReason.accepted
        self._steps += 1
        self._recent.add(value, record)
        self._look_after(record, arrival_ns)
        return prediction_result(record)

    def predict_next(self, observation: Observed | None = None) -> PredictionResult:
        """The forecast that is out now; with an observation, the same as `step`."""
        if observation is not None:
            return self.step(observation)
        if self._memory.last is None:
            raise NothingSeen("there is no forecast yet: call fit_history, load_snapshot or step first.")
        return prediction_result(self._memory.last)

    def plot(self) -> Page:
        """A picture of the last `wtmm_buffer_size` ticks: a notebook shows it, and `save` keeps it."""
        if not len(self._recent):
            raise NothingSeen("there is nothing to draw yet: call fit_history or step first.")
        records = self._recent.records()
        return page(prediction_result(records), self._recent.values(), records["timestamp_ns"], self.asset)

    def validate_domain(self, observation: Observed) -> bool:
        """Says whether the predictor would learn from this value, by its own measure; nothing is changed."""
        value, now_ns = numbers(observation)
        _, records = self._run(self._memory.rows, [value], [now_ns], [now_ns])
        return not records[0]["rejected"] and not int(records[0]["events"]) & Event.DomainError

    @property
    def state(self) -> States:
        """All that is remembered, as FunctionalPredictor has it: a value."""
        return States(self._memory.rows, self._program.layout_fingerprint)

    @state.setter
    def state(self, state: States) -> None:
        _check_kind("state", state, States)
        if state.layout_fingerprint != self._program.layout_fingerprint:
            raise WrongLayout("this state was made with another config. Use one of a predictor with this config.")
        if len(state) != 1:
            raise WrongShape(f"a predictor of one asset has the state of one, got {len(state)}.")
        self._remember(Memory(state.rows, None))

    def reconfigure(self, config: PredictorConfig, *, allow_restart: bool = False) -> bool:
        """Takes another config. True if the state was kept: numbers swap at once, without a new compilation.

        A config of other shapes raises ConfigRefused, or with `allow_restart` begins cold.
        """
        program = self._program
        if config.static() != self.config.static():
            program = Program(config, cache_dir=self._cache_dir)
        if program.layout_fingerprint == self._program.layout_fingerprint:
            program.compile()
            self._program, self.config, self._params = program, config, config.params()
            self._encoder = Encoder(program, config)
            return True
        if not allow_restart:
            names = _differing(self.config, config)
            raise ConfigRefused(
                f"{', '.join(names)} cannot change without losing the state. Allow a restart, or leave as it was."
            )
        self._start(config)
        return False

    def save_snapshot(self, path: Path | str) -> dict[str, Any]:
        """Writes the state to a file, whole or not at all; raises WriteFailed."""
        return writer.write(Path(path), self._content()())

    def save_snapshot_nonblocking(self, path: Path | str) -> "Future[dict[str, Any]]":
        """The same in the background. A state is a value, so that even its encoding can wait for the other thread.

        The future's result has a `status`: "success", "error" with the `error`, or "superseded" when a newer snapshot
        for the same file took its place before it was begun.
        """
        return self._writer.submit(Path(path), self._content())

    def save_periodic_snapshot(self) -> "Future[dict[str, Any]]":
        """One more in the folder of the SnapshotPlan, as every so many steps; the oldest ones go."""
        if self._plan is None or self._names is None:
            raise NoSnapshot("there is no folder for periodic snapshots: make the predictor with a SnapshotPlan.")
        path = self._names.next(self._clock())
        prune = partial(rotation.prune, path.parent, self._plan.keep)
        return self._writer.submit(path, self._content(), slot="periodic", after=prune)

    def load_snapshot(self, path: Path | str) -> Path:
        """Takes the state of a snapshot, or of the newest one that is whole in a folder; returns the file it was.

        Raises IntegrityError, SchemaMismatch or NoSnapshot, all of them ValueErrors; the state is then what it was.
        """
        return _each(Path(path), self._load)

    def save_emergency_dump(self, folder: Path | str = dump.DUMP_FOLDER) -> Path:
        """Writes the forensic file of this moment now. With a DumpPlan each beginning emergency does so by itself."""
        if not len(self._recent):
            raise NothingSeen("there is nothing to dump yet: call fit_history or step first.")
        now_ns = self._clock()
        path = dump.dump_path(folder, self.asset, now_ns)
        writer.write(path, dump.encode_dump(self.config, self.asset, self._recent, now_ns), sealed=False)
        return path

    @property
    def snapshots(self) -> WriterStatus:
        """How the writing in the background goes."""
        return self._writer.status

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until nothing is left to be written; False if that takes longer."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = writer.EXIT_WAIT_S) -> bool:
        """Writes what is left, and ends the writing thread."""
        return self._writer.close(timeout_s)

    def __enter__(self) -> "UniversalPredictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, config: PredictorConfig) -> None:
        program = Program(config, cache_dir=self._cache_dir)
        program.compile()
        self._program, self.config, self._params = program, config, config.params()
        self._encoder = Encoder(program, config)
        self._steps = 0
        self._recent = Recent(config.wtmm_buffer_size)
        self._remember(Memory(program.cold(1), None))
        self._gate = DumpGate(self._dumps.interval_s) if self._dumps else None

    def _remember(self, memory: Memory) -> None:
        """Goes on from another state; what was already out there is not told again."""
        self._memory, self._refusing = memory, RejectReason.accepted
        self._alerts = Alerts(self.asset)
        if memory.last is not None:
            self._alerts.begun(int(memory.last["events"]))

    def _run(self, rows: np.ndarray, values: Any, times_ns: Any, arrivals_ns: Any) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(values, np.float64)
        times_ns, arrivals_ns = np.asarray(times_ns, np.int64), np.asarray(arrivals_ns, np.int64)
        row_of = ROW if len(values) == 1 else np.zeros(len(values), np.int32)
        return self._program.run(rows, row_of, values, times_ns, arrivals_ns, params=self._params)

    def _refused(self, record: np.ndarray) -> PredictionResult:
        reason = RejectReason(int(record["rejected"]))
        if reason != self._refusing:  # once a run of them
            log.warning("tick_rejected", extra={"asset": self.asset, "reason": reason.name})
        self._refusing = reason
        last = self._memory.last
        if last is None:
            return prediction_result(record)
        return dataclasses.replace(prediction_result(last), rejected=record["rejected"])

    def _look_after(self, record: np.ndarray, now_ns: int) -> None:
        """What a tick may set off: files first, since a warning may have been turned into an error."""
        new = self._alerts.begun(int(record["events"]))
        if self._plan and self._steps % self._plan.every == 0:
            self.save_periodic_snapshot()
        if self._dumps and self._gate and new & Event.EmergencyMode and self._gate.open(now_ns):
            self._dump(self._dumps, now_ns)
        if new:
            self._alerts.tell(new, {"timestamp_ns": int(record["timestamp_ns"])}, stacklevel=3)

    def _dump(self, plan: DumpPlan, now_ns: int) -> None:
        path = dump.dump_path(plan.folder, self.asset, now_ns)
        content = partial(dump.encode_dump, self.config, self.asset, self._recent.copy(), now_ns)
        self._writer.submit(path, content, sealed=False, after=partial(dump.prune_dumps, path.parent, plan.keep))
        log.critical("emergency_dump", extra={"asset": self.asset, "path": str(path)})

    def _content(self) -> Callable[[], bytes]:
        """The snapshot of this moment, still to be encoded."""
        return partial(self._encoder.encode, *self._memory, self._clock())

    def _load(self, path: Path) -> Path:
        found = snapshot.decode(self._program, self.config, _read(path), path)
        if found.config != self.config:
            log.info("snapshot_of_other_numbers", extra={"settings": _differing(found.config, self.config)})
        self._remember(Memory(found.row, found.last))
        return path


def _check_kind(name: str, given: Any, kind: type) -> None:
    if given is not None and not isinstance(given, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(given).__name__}.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NoSnapshot(f"there is no snapshot {path}.") from None


def _each(path: Path, load: Callable[[Path], Any]) -> Any:
    return rotation.load_newest(path, load) if path.is_dir() else load(path)


def _differing(one: PredictorConfig, other: PredictorConfig) -> list[str]:
    return [name for name, value in vars(one).items() if value != vars(other)[name]]
