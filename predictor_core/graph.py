"""Program: rows and ticks in, new rows and results out, whatever their number.

Around the compiled program (canonical.py) lies plain NumPy: rows and ticks are copied into host buffers, lot by lot,
and new rows and results out of them. The device reads those buffers in place, so they are filled again only when the
results of the lot before are back.
"""

import inspect
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import jax
import numpy as np

from . import executables
from .canonical import MODEL, Canon, Feed, Model, lower
from .config import DEPTHS, PRUNED, Params, PredictorConfig
from .errors import WrongShape
from .executables import Executable
from .layout import Layout, fields_of, rows_of
from .lots import ONE, Lot, lots_of
from .payload import payload_dtype
from .records import record_bytes

# Raise it when the same state words come to mean something else.
MODEL_VERSION = 1
# The leaf of a state that holds the event time of its last tick.
LAST_TIME = "gates.clock.last_ns"
LANES_CPU, LANES_ACCELERATOR = 64, 512
ALIGNMENT = 64  # bytes; the device reads a host array that is aligned so without a copy


class Program:
    """One compiled program per depth, with its buffers. Calls from several threads take turns."""

    def __init__(
        self,
        config: PredictorConfig,
        *,
        cache_dir: Path | str | None = None,
        blocks: int = 8,
        steps: int = 16,
        model: Model = MODEL,
    ) -> None:
        self.config = config
        self.compilations = 0
        self.lanes = LANES_CPU if jax.default_backend() == "cpu" else LANES_ACCELERATOR
        dtypes = tuple(value.dtype for value in config.params())
        self._own_settings = _words_of(config.params(), dtypes)
        self._last_settings: tuple[Params | None, np.ndarray] = (None, self._own_settings)
        self._canon = Canon(model, config.static(), self.lanes, blocks, blocks * steps, dtypes)
        self._layout = self._canon.state_layout
        self._cold_row = _cold_row(self._canon)
        self._cache_dir = Path(cache_dir) if cache_dir else None
        self._executables: dict[int, Executable] = {}
        self._lock = threading.Lock()
        self._buffers = _Buffers(self._canon)

        self.dtype = np.dtype(np.uint64 if config.float_precision == 64 else np.uint32)
        self.words = 4 * self._layout.words // self.dtype.itemsize
        self.record_bytes = record_bytes(self.words, self.dtype)
        self.result_dtype = record_dtype(self._canon.result_layout)
        self.payload_bytes = payload_dtype(self.result_dtype).itemsize
        rest = replace(self._canon.shapes, log_sig_depth=0)  # every depth runs on the same rows
        self.layout_fingerprint = self._layout.fingerprint(MODEL_VERSION, rest)
        self.fingerprint = executables.fingerprint(self.layout_fingerprint, self.lanes, _sources(model))

    def compile(self, depths: Sequence[int] | None = None) -> None:
        """Makes ready for these depths (by default the config's own), from the cache where it has them.

        Those that have to be compiled are compiled side by side: each takes one core.
        """
        wanted = depths if depths is not None else [self.config.log_sig_depth]
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            list(pool.map(self._executable, wanted))

    def made_by(self, params: Params | None = None) -> bytes:
        """Eight bytes for this build on this machine and these numbers: what every prediction carries."""
        return blake2b(self.fingerprint + self._settings(params).tobytes(), digest_size=8).digest()

    def cold(self, n: int) -> np.ndarray:
        """Rows [n, words] of assets that have seen nothing."""
        return np.repeat(self._cold_row.view(self.dtype), n, 0)

    def last_times_ns(self, rows: np.ndarray) -> np.ndarray:
        """The event time of the last tick of each row, int64 [n]; the least int64 where there was none."""
        return fields_of(self._layout, rows)[LAST_TIME].copy()

    def fields(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Every leaf of a state by its name, as views [n, features...] of the rows: to see, to keep, to restore."""
        return fields_of(self._layout, rows)

    def run(
        self,
        rows: np.ndarray,
        row_of: np.ndarray,
        values: np.ndarray,
        times_ns: np.ndarray,
        arrivals_ns: np.ndarray,
        depth: int | None = None,
        params: Params | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """New rows [n, words], and a result for each tick in the order of the ticks.

        `row_of[j]` is the row of tick j; the ticks of one row are taken in order of appearance. `rows` is not changed,
        and what comes back belongs to the caller.
        """
        rows = np.array(rows, order="C")
        ticks = row_of, values, times_ns, arrivals_ns
        return rows, self.run_within(rows, np.arange(len(rows)), *ticks, depth=depth, params=params)

    def run_within(
        self,
        table: np.ndarray,
        places: np.ndarray,
        row_of: np.ndarray,
        values: np.ndarray,
        times_ns: np.ndarray,
        arrivals_ns: np.ndarray,
        depth: int | None = None,
        params: Params | None = None,
    ) -> np.ndarray:
        """The same for row i at `table[places[i]]`, which becomes the new one there: a result for each tick.

        No place may come twice. What a run that failed leaves in these places is to be thrown away.
        """
        self._check(table, places, row_of, values, times_ns, arrivals_ns)
        depth = self.config.log_sig_depth if depth is None else depth
        run = self._executable(depth)
        settings = self._settings(params)
        words, results = table.view(np.uint32), np.empty(len(row_of), self.result_dtype)
        ticks = Feed(values, times_ns, arrivals_ns, None, None, None, depth == PRUNED)
        with self._lock:
            try:
                for lot in self._lots(row_of, len(places)):
                    at = places[lot.rows]
                    self._buffers.fill(lot, words, at, ticks)
                    self._buffers.execute(run, settings)
                    self._buffers.empty(lot, words, at, results)
            except BaseException:
                self._buffers = _Buffers(self._canon)  # the device may still be at work on the old ones
                raise
        return results

    def _lots(self, row_of: np.ndarray, rows: int) -> Iterable[Lot]:
        if len(row_of) == rows == 1:
            return (ONE,)
        return lots_of(row_of, rows, self.lanes, self._canon.blocks, self._canon.steps)

    def _settings(self, params: Params | None) -> np.ndarray:
        """The words of these params; those that come at every call are turned into words once."""
        if params is None:
            return self._own_settings
        known, words = self._last_settings
        if params is not known:
            words = _words_of(params, self._canon.params)
            self._last_settings = (params, words)
        return words

    def _check(self, rows: np.ndarray, places: np.ndarray, row_of: np.ndarray, *ticks: np.ndarray) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.words or rows.dtype != self.dtype:
            raise WrongShape(
                f"rows must be {self.dtype.name} [n, {self.words}] for this config, got {rows.dtype.name} "
                f"{rows.shape}. Take them from Program.cold, or from records of the same config."
            )
        if any(column.shape != row_of.shape for column in ticks) or row_of.ndim != 1:
            shapes = [column.shape for column in (row_of, *ticks)]
            raise WrongShape(f"row_of, values, times_ns and arrivals_ns must have one length, got {shapes}.")
        for name, indices, length in (("row_of", row_of, len(places)), ("places", places, len(rows))):
            if len(indices) and not 0 <= indices.min() <= indices.max() < length:
                raise WrongShape(f"{name} must lie in [0, {length}), got [{indices.min()}, {indices.max()}].")

    def _executable(self, depth: int) -> Executable:
        depth = DEPTHS[0] if depth == PRUNED else depth
        if depth not in self._executables:
            canon = replace(self._canon, shapes=replace(self._canon.shapes, log_sig_depth=depth))
            assert canon.state_layout == self._layout, f"depth {depth} changes the state"
            made, compiled_now = executables.executable(
                (canon.shapes, canon.blocks, canon.steps, *(part.__qualname__ for part in canon.model)),
                self.fingerprint,
                self._cache_dir,
                lambda: lower(canon),
            )
            with self._lock:
                self.compilations += compiled_now
            self._executables[depth] = made
        return self._executables[depth]


class _Buffers:
    """Host arrays that the program reads, and device arrays that it writes over again and again."""

    def __init__(self, canon: Canon) -> None:
        rows, feed, _, new_rows, results = canon.argument_shapes()
        self.rows, self.feed = _aligned(rows), _aligned(feed)
        given = jax.device_put((self.rows, self.feed))
        self.shared = given if _in_place(given, (self.rows, self.feed)) else None
        self.settings: tuple[np.ndarray | None, jax.Array | None] = (None, None)
        self.sections = _sections(self.feed, canon)
        self.outputs = [jax.device_put(np.zeros(shape, np.uint32)) for shape in (new_rows, results)]
        self.blocks = canon.blocks

    def fill(self, lot: Lot, words: np.ndarray, places: np.ndarray, ticks: Feed) -> None:
        """Lanes and steps that the lot does not use keep what they had: they are masked, and rows do not meet."""
        np.take(words, places, 0, self.rows[: len(places)], mode="clip")
        to = self.sections
        to.values[lot.places] = ticks.values[lot.ticks]
        to.times_ns[lot.places] = ticks.times_ns[lot.ticks]
        to.arrivals_ns[lot.places] = ticks.arrivals_ns[lot.ticks]
        to.counts[: len(lot.counts)] = lot.counts
        to.counts[len(lot.counts) :] = 0
        to.first_steps[: len(lot.first_steps)] = lot.first_steps
        to.blocks[0] = len(lot.first_steps) - 1
        to.pruned[0] = ticks.pruned

    def execute(self, run: Executable, settings: np.ndarray) -> None:
        if settings is not self.settings[0]:
            self.settings = settings, jax.device_put(settings)
        given = self.shared or (self.rows, self.feed)
        self.outputs = jax.block_until_ready(run(*given, self.settings[1], *self.outputs))

    def empty(self, lot: Lot, words: np.ndarray, places: np.ndarray, results: np.ndarray) -> None:
        """Copies out, since the next execution writes over the outputs."""
        rows, written = (np.asarray(output) for output in self.outputs)
        words[places] = rows[: len(places)]
        results.view(np.uint32).reshape(len(results), -1)[lot.ticks] = written[lot.places]


def record_dtype(layout: Layout) -> np.dtype:
    """Rows of a layout as NumPy records, with a field for each leaf under its last name."""
    leaves = sorted(layout.leaves, key=lambda leaf: leaf.start)
    return np.dtype(
        {
            "names": [leaf.name.rpartition(".")[2] for leaf in leaves],
            "formats": [(leaf.dtype, leaf.features) for leaf in leaves],
            "offsets": [4 * leaf.start for leaf in leaves],
            "itemsize": 4 * layout.words,
        }
    )


def _cold_row(canon: Canon) -> np.ndarray:
    with jax.enable_x64(True):
        tree = jax.tree.map(np.asarray, canon.model.cold(canon.shapes, (1,)))
    return rows_of(canon.state_layout, tree)


def _words_of(params: Params, dtypes: tuple[np.dtype, ...]) -> np.ndarray:
    numbers = (np.asarray(value, dtype) for value, dtype in zip(params, dtypes, strict=True))
    return np.array([number.view(np.uint64) for number in numbers], np.uint64).view(np.uint32)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed words at an address that the device can read in place."""
    length = 4 * int(np.prod(shape))
    raw = np.zeros(length + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + length].view(np.uint32).reshape(shape)


def _in_place(there: Sequence[jax.Array], here: Sequence[np.ndarray]) -> bool:
    """Whether the device reads these very bytes, so that what is written into them later is what it sees."""
    on_host = jax.default_backend() == "cpu"
    return on_host and all(a.unsafe_buffer_pointer() == b.ctypes.data for a, b in zip(there, here, strict=True))


def _sections(feed: np.ndarray, canon: Canon) -> Feed:
    """The feed's sections as typed views."""
    ends = np.cumsum([length * dtype.itemsize // 4 for length, dtype in canon.feed_sections()])
    parts = np.split(feed, ends[:-1])
    return Feed(*(part.view(dtype) for part, (_, dtype) in zip(parts, canon.feed_sections(), strict=True)))


def _sources(model: Model) -> bytes:
    return executables.sources(*(inspect.getfile(part) for part in (lower, payload_dtype, *model)))
