"""The gates: which ticks are taken at all, which teach nothing, and when the weights must stand still.

    rejected        late, not finite, from the future: the tick changes nothing and gets no forecast
    domain error    beyond `sigma_bound` deviations: ignored, the last valid forecast stands
    outlier         beyond `outlier_bound`: forecast, nothing learnt; the level stays where it was
    frozen          one value repeated for longer than this asset ever does
    sparse, stale   the gap before the tick, its age on arrival

A tick is only far out if both its move and its level are: a pulse moves far inside a wide level, a random walk wanders
far in small moves. Both yardsticks are measured per move, not per tick, so that a quiet spell cannot shrink them, and
neither is below a quarter of the largest value remembered, so that what comes back (pulses, outages) is not far out.
What stays far out for `reanchor_after` ticks in a row is believed: the level is anchored there and the yardsticks start
anew.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import real_of, running_mean, spread
from .observation import Observation
from .result import RejectReason

NEVER = np.iinfo(np.int64).min
VALUE_MAX = 1e18  # its square still fits in float32

WARM_UP = 32  # moves before a yardstick can judge
MOVE_RATE, OFFSET_RATE, PEAK_DECAY = 0.005, 0.01, 0.001
PEAK_SHARE = 0.25
BELIEVED_MAX = 100.0  # deviations that one move may lift the memory of peaks by

INTERVAL_RATE = 0.05
TIE_RATE, TIE_START = 0.01, 0.5
FROZEN_BY_CHANCE = 1e-6  # a run of ties less likely than this is no accident
FRESH_RATE = 0.3


class Reach(eqx.Module):
    """How far this asset moves, and how far it stands from its mean."""

    moves: Array  # int32, since the last anchor
    power: Array  # mean square of the moves
    peak: Array  # largest move, slowly forgotten
    offset: Array  # level over its slow mean
    offset_power: Array
    offset_peak: Array
    strikes: Array  # int32, ticks in a row that were far out


class Clock(eqx.Module):
    last_ns: Array  # int64
    interval: Array  # ns, mean gap between ticks
    stale: Array  # int32, 0 or 1


class Stillness(eqx.Module):
    run: Array  # int32, ties in a row, or minus the moves in a row
    tie_rate: Array
    typical_run: Array  # how long this asset's longer ties last
    fresh_power: Array  # mean square of the moves since the freeze
    recovered: Array  # int32, ticks in a row with fresh power
    frozen: Array  # int32, 0 or 1


class Gates(eqx.Module):
    reach: Reach
    clock: Clock
    stillness: Stillness
    clean: Array  # int32, ticks in a row without trouble
    degraded: Array  # int32, 0 or 1


class Verdict(NamedTuple):
    """What the gates decided about one tick; bool but for `rejected`."""

    rejected: Any  # int32, a RejectReason
    domain_error: Any
    outlier: Any
    reanchored: Any
    stale: Any
    sparse: Any
    frozen: Any
    degraded: Any
    restored: Any  # left the degraded mode at this tick
    learn: Any  # the models may learn from the tick, and the level follows it
    reweigh: Any  # the weights may move


def cold(shapes: object, lanes: tuple[int, ...]) -> Gates:
    real = real_of(shapes)
    zero, none = spread(0.0, lanes, real), spread(0, lanes, np.int32)
    return Gates(
        reach=Reach(none, zero, zero, zero, zero, zero, none),
        clock=Clock(spread(NEVER, lanes, np.int64), zero, none),
        stillness=Stillness(none, spread(TIE_START, lanes, real), zero, zero, none, none),
        clean=none,
        degraded=none,
    )


def update(gates: Gates, observation: Observation, move: Array, params: Any) -> tuple[Gates, Verdict]:
    """Judges one tick; `move` is its distance from the last level that was taken (anything at an asset's first tick).

    The state that comes back for a rejected tick means nothing: keep the old one.
    """
    first = gates.clock.last_ns == NEVER
    move = jnp.where(first | ~jnp.isfinite(move), 0.0, move).astype(move.dtype)
    rejected = _reject(gates.clock, observation, params)
    reach, outlier, domain_error, reanchored = _measure(gates.reach, move, params)
    clock, sparse = _time(gates.clock, observation, params)
    stillness = _watch(gates.stillness, move, first, gates.reach, params)

    stale, frozen = clock.stale > 0, stillness.frozen > 0
    trouble = stale | sparse | frozen | domain_error
    clean = jnp.where(trouble, 0, jnp.minimum(gates.clean + 1, 1 << 20)).astype(jnp.int32)
    degraded = trouble | ((gates.degraded > 0) & (clean < params.degraded_recovery_min_steps))
    learn = ~(outlier | domain_error)
    verdict = Verdict(
        rejected=rejected,
        domain_error=domain_error,
        outlier=outlier,
        reanchored=reanchored,
        stale=stale,
        sparse=sparse,
        frozen=frozen,
        degraded=degraded,
        restored=(gates.degraded > 0) & ~degraded,
        learn=learn,
        reweigh=learn & ~degraded,
    )
    return Gates(reach, clock, stillness, clean, degraded.astype(jnp.int32)), verdict


def _reject(clock: Clock, observation: Observation, params: Any) -> Array:
    value, time_ns, arrival_ns = observation
    bad = ~(abs(value) < VALUE_MAX)  # catches NaN
    future = time_ns - params.max_future_drift_ns > arrival_ns
    late = (time_ns <= clock.last_ns) & (clock.last_ns != NEVER)
    reason = jnp.where(late, RejectReason.late, RejectReason.accepted)
    reason = jnp.where(future, RejectReason.future, reason)
    return jnp.where(bad, RejectReason.not_finite, reason).astype(jnp.int32)


def _measure(reach: Reach, move: Array, params: Any) -> tuple[Reach, Array, Array, Array]:
    real = move.dtype
    sigma = jnp.asarray(params.sigma_val, real)
    size, offset = abs(move), reach.offset + move
    unit = sigma * jnp.maximum(jnp.sqrt(reach.power), PEAK_SHARE * reach.peak)
    offset_unit = sigma * jnp.maximum(jnp.sqrt(reach.offset_power), PEAK_SHARE * reach.offset_peak)
    distance = jnp.minimum(size / jnp.maximum(unit, 1e-30), abs(offset) / jnp.maximum(offset_unit, 1e-30))
    distance = jnp.where(reach.moves >= WARM_UP, distance, 0.0)

    domain = distance > jnp.asarray(params.sigma_bound, real)
    far = domain | (distance > jnp.asarray(params.outlier_bound, real))
    reanchored = far & (reach.strikes >= params.reanchor_after)
    held = far & ~reanchored
    learnt = _learn_reach(reach, move, unit, offset_unit)
    anchored = eqx.tree_at(lambda r: (r.moves, r.offset), learnt, (jnp.zeros_like(reach.moves), jnp.zeros_like(move)))
    moved = move != 0
    followed = _select(reanchored, anchored, _select(moved & ~held, learnt, reach))
    strikes = jnp.where(held, reach.strikes + 1, 0).astype(jnp.int32)
    followed = eqx.tree_at(lambda r: r.strikes, _remember(followed, held, learnt), strikes)
    return followed, held & ~domain, held & domain, reanchored


def _select(condition: Array, yes: Reach, no: Reach) -> Reach:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _remember(reach: Reach, held: Array, refused: Reach) -> Reach:
    """Half of what was refused first goes into the memory of peaks: the third such pulse is no surprise any more."""
    first = held & (reach.strikes == 0)
    halves = [
        jnp.where(first, old + 0.5 * jnp.maximum(new - old, 0.0), old)
        for old, new in ((reach.peak, refused.peak), (reach.offset_peak, refused.offset_peak))
    ]
    return eqx.tree_at(lambda r: (r.peak, r.offset_peak), reach, tuple(halves))


def _learn_reach(reach: Reach, move: Array, unit: Array, offset_unit: Array) -> Reach:
    judged = reach.moves >= WARM_UP
    size = jnp.where(judged, jnp.minimum(abs(move), BELIEVED_MAX * unit), abs(move))
    away = abs(reach.offset + move)
    away = jnp.where(judged, jnp.minimum(away, BELIEVED_MAX * offset_unit), away)
    count = (reach.moves + 1).astype(move.dtype)
    offset = (1 - jnp.maximum(OFFSET_RATE, 1 / (count + 1))) * (reach.offset + move)
    return Reach(
        moves=jnp.minimum(reach.moves + 1, 1 << 20),
        power=running_mean(reach.power, size * size, MOVE_RATE, count),
        peak=jnp.maximum(size, (1 - PEAK_DECAY) * reach.peak),
        offset=offset,
        offset_power=running_mean(reach.offset_power, away * away, OFFSET_RATE, count),
        offset_peak=jnp.maximum(away, (1 - PEAK_DECAY) * reach.offset_peak),
        strikes=reach.strikes,
    )


def _time(clock: Clock, observation: Observation, params: Any) -> tuple[Clock, Array]:
    """The age of a tick on arrival with hysteresis, and the gap before it against this asset's own pace."""
    _, time_ns, arrival_ns = observation
    age = arrival_ns - time_ns
    limit = jnp.where(clock.stale > 0, params.inference_recovery_hysteresis, 1.0) * params.staleness_ttl_ns
    backfill = age > params.max_past_drift_ns  # old on purpose, not late on its way
    still_stale = jnp.where(clock.stale > 0, age >= limit, age > limit)
    stale = still_stale & ~backfill

    real = clock.interval.dtype
    known = clock.last_ns != NEVER
    gap = jnp.where(known, time_ns - clock.last_ns, 0).astype(real)
    usual = jnp.asarray(params.sparse_interval_factor, real) * clock.interval
    floor = jnp.asarray(params.besov_nyquist_interval_ns, real)
    sparse = (clock.interval > 0) & (gap > jnp.maximum(floor, usual))
    paced = clock.interval + INTERVAL_RATE * (jnp.minimum(gap, usual) - clock.interval)
    interval = jnp.where(clock.interval > 0, paced, gap)
    return Clock(time_ns, interval, stale.astype(jnp.int32)), sparse


def _watch(stillness: Stillness, move: Array, first: Array, reach: Reach, params: Any) -> Stillness:
    """Follows ties. Frozen: more equal values in a row than the setting, than chance and than habit explain."""
    tied = (move == 0) & ~first
    ties = jnp.maximum(stillness.run, 0)
    ties_now = jnp.where(tied, ties + 1, 0)
    run = jnp.where(tied, ties + 1, jnp.minimum(stillness.run, 0) - 1)
    run = jnp.clip(run, -(1 << 20), 1 << 20).astype(jnp.int32)

    real = move.dtype
    by_chance = 1 + math.log(FROZEN_BY_CHANCE) / jnp.log(jnp.clip(stillness.tie_rate, 1e-6, 0.9999))
    limit = jnp.maximum(by_chance, 2 * stillness.typical_run)
    limit = jnp.maximum(limit, jnp.asarray(params.frozen_signal_min_steps, real))
    stuck = (ties_now + 1).astype(real) >= limit

    fresh = jnp.where(stillness.frozen > 0, stillness.fresh_power, 0.0)
    fresh = fresh + FRESH_RATE * (move * move - fresh)
    alive = (fresh > jnp.asarray(params.frozen_signal_recovery_ratio, real) * reach.power) & (fresh > 0)
    recovered = jnp.where(alive & (stillness.frozen > 0), stillness.recovered + 1, 0).astype(jnp.int32)
    # A feed that comes back livelier or calmer than before is told by its moves alone.
    free = (recovered >= params.frozen_signal_recovery_steps) | (-run >= 4 * params.frozen_signal_min_steps)
    frozen = jnp.where(stillness.frozen > 0, ~free, stuck)

    ended, length = ~tied & ~first, jnp.minimum(ties.astype(real), limit)
    rate = jnp.maximum(TIE_RATE, 1 / (reach.moves.astype(real) + 10))
    tie_rate = (1 - (1 - stillness.tie_rate) * jnp.exp(length * jnp.log1p(-rate))) * (1 - rate)
    habit = stillness.typical_run
    grown, worn = habit + 0.25 * (ties.astype(real) - habit), 0.998 * habit
    return Stillness(
        run=run,
        tie_rate=jnp.where(ended, tie_rate, stillness.tie_rate),
        typical_run=jnp.where(ended, jnp.where(ties > habit, grown, worn), habit),
        fresh_power=fresh,
        recovered=recovered,
        frozen=frozen.astype(jnp.int32),
    )
