"""The canonical program: one executable for any number of assets and ticks, with the same bits for all of them.

    for each block of 64 lanes (traced count)
        turn 64 rows of words into lanes
        for each of the block's steps (traced bounds)
            see the words as a state, tick the lanes that have a tick at this step, write the words
        turn the lanes back into 64 rows

An asset always goes through the same instructions, wherever it lies and whoever its neighbours are: that makes its
results independent of batch size, position, order and company. Everything crosses the border as uint32 words.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from . import state, tick
from .config import DEPTHS, Params, Shapes
from .layout import Layout, into_lanes, into_rows, layout_of, pack, unpack
from .observation import Observation
from .result import Output, RejectReason, output_shape


class Model(NamedTuple):
    """The predictor proper: its cold state, and one tick; lanes that are not live keep their state in it."""

    cold: Callable[..., Any]
    tick: Callable[..., tuple[Any, Output]]


MODEL = Model(state.cold, tick.tick)


class ResultRow(NamedTuple):
    """What the program writes for every tick."""

    timestamp_ns: Any
    output: Output


class Feed(NamedTuple):
    """The ticks of one execution, as sections of one flat array: one transfer to the device."""

    values: Any  # float64 [steps * lanes]
    times_ns: Any  # int64 [steps * lanes]
    arrivals_ns: Any  # int64 [steps * lanes]
    counts: Any  # int32 [blocks * lanes], ticks of each lane
    first_steps: Any  # int32 [blocks + 1], where each block's steps begin, and where the last one's end
    blocks: Any  # int32 [1], blocks in use
    pruned: Any  # int32 [1], 1 where kernels A and B take no part; only the least depth looks at it


@dataclass(frozen=True)
class Canon:
    """All that fixes a canonical program but its depth."""

    model: Model
    shapes: Shapes
    lanes: int
    blocks: int
    steps: int  # of all blocks together
    params: tuple[np.dtype, ...]

    @functools.cached_property
    def state_layout(self) -> Layout:
        return layout_of(lambda: self.model.cold(self.shapes), self.shapes.float_precision == 64)

    @functools.cached_property
    def result_layout(self) -> Layout:
        like = ResultRow(np.zeros((), np.int64), output_shape(len(self.shapes.quantile_levels)))
        return layout_of(lambda: like)

    def feed_sections(self) -> Feed:
        """Length and dtype of each section."""
        ticks, rows = self.steps * self.lanes, self.blocks * self.lanes
        whole = np.dtype(np.int64)
        count = np.dtype(np.int32)
        return Feed(
            values=(ticks, np.dtype(np.float64)),
            times_ns=(ticks, whole),
            arrivals_ns=(ticks, whole),
            counts=(rows, count),
            first_steps=(self.blocks + 1, count),
            blocks=(1, count),
            pruned=(1, count),
        )

    def feed_words(self) -> int:
        return sum(length * dtype.itemsize // 4 for length, dtype in self.feed_sections())

    def argument_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of rows, feed, params, and the two arrays that the program writes over: rows and results."""
        rows = (self.blocks * self.lanes, self.state_layout.words)
        results = (self.steps * self.lanes, self.result_layout.words)
        return rows, (self.feed_words(),), (2 * len(self.params),), rows, results


def lower(canon: Canon) -> Any:
    """The program, traced and ready to be compiled. The last two arguments are given up to become the outputs."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.uint32) for shape in canon.argument_shapes()]
    with jax.enable_x64(True):
        return jax.jit(_program(canon), donate_argnums=(3, 4), keep_unused=True).lower(*arguments)


def _program(canon: Canon) -> Callable[..., tuple[Array, Array]]:
    layout, lanes = canon.state_layout, canon.lanes

    def program(rows: Array, feed: Array, params: Array, new_rows: Array, results: Array) -> tuple[Array, Array]:
        given, settings = _feed(canon, feed), _params(canon, params)
        pruned = given.pruned[0] > 0 if canon.shapes.log_sig_depth == DEPTHS[0] else False

        def block(index: Array, written: tuple[Array, Array]) -> tuple[Array, Array]:
            new_rows, results = written
            first = given.first_steps[index]
            counts = lax.dynamic_slice(given.counts, (index * lanes,), (lanes,))

            def step(at: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
                words, results = carried
                observation = _observation(given, at, lanes)
                live = at - first < counts
                new, output = canon.model.tick(unpack(layout, words), observation, settings, canon.shapes, pruned, live)
                return pack(layout, new), _write(canon, results, at, observation, output)

            words = into_lanes(rows, index * lanes, lanes)
            words, results = lax.fori_loop(first, given.first_steps[index + 1], step, (words, results))
            return into_rows(new_rows, index * lanes, words), results

        return lax.fori_loop(np.int32(0), given.blocks[0], block, (new_rows, results))

    return program


def _feed(canon: Canon, words: Array) -> Feed:
    """Sections stay words until a step takes its share."""
    sections, start = [], 0
    for length, dtype in canon.feed_sections():
        stop = start + length * dtype.itemsize // 4
        part = words[start:stop]
        sections.append(part if dtype.itemsize == 8 else lax.bitcast_convert_type(part, dtype))
        start = stop
    return Feed(*sections)


def _params(canon: Canon, words: Array) -> Params:
    numbers = words.reshape(-1, 2)
    typed = [_wide(numbers[index], dtype) for index, dtype in enumerate(canon.params)]
    return Params(*typed)


def _observation(feed: Feed, at: Array, lanes: int) -> Observation:
    def now(section: Array, dtype: type) -> Array:
        return _wide(lax.dynamic_slice(section, (2 * lanes * at,), (2 * lanes,)).reshape(lanes, 2), dtype)

    return Observation(now(feed.values, jnp.float64), now(feed.times_ns, jnp.int64), now(feed.arrivals_ns, jnp.int64))


def _wide(pairs: Array, dtype: Any) -> Array:
    """64-bit numbers [...] of word pairs [..., 2]."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(pairs, jnp.uint64), dtype)


def _write(canon: Canon, results: Array, at: Array, observation: Observation, output: Output) -> Array:
    """Writes one step's results: a row of words for each lane."""
    row = ResultRow(observation.time_ns, _without_forecast_if_rejected(output))
    return into_rows(results, at * canon.lanes, pack(canon.result_layout, row))


def _without_forecast_if_rejected(output: Output) -> Output:
    refused = output.rejected != RejectReason.accepted

    def blank(leaf: Array) -> Array:
        nothing = jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else 0
        return jnp.where(refused, jnp.asarray(nothing, leaf.dtype), leaf)

    return jax.tree.map(blank, output)._replace(rejected=output.rejected)
