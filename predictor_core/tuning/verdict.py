"""Whether a candidate takes over, on ticks that the search has not seen; and how it does on ticks nobody has seen.

    prune   each knob goes back to where it was if the search does not need it there
    guard   one candidate, one look at the validation part: 99 of 100 samples must show a gain, and both its halves
    report  the held-back part, for whoever reads; it decides nothing

Intervals are percentiles of a moving-block bootstrap. Blocks are a few bins long, and at the same places for all
assets, so what assets have in common stays in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import folds
from .objective import WalkForward, coverage_error, mean_loss, pooled, ratios
from .runs import Tallies

SAMPLES, BLOCK, SEED = 2000, 3, 7
NEEDLESS = 1e-4  # what a knob must add to the objective to stay changed
GAIN_MIN = 5e-4  # less is not worth a change
SURE = 0.99  # share of the samples that must show a gain
ASSET_LOSS_MAX = 0.002  # no single asset may clearly lose more


@dataclass(frozen=True)
class Comparison:
    """Losses over the present configuration's: the ratio, and where it lies with 95 % confidence."""

    ratio: float
    low: float
    high: float
    sure: float  # share of the samples that show a gain
    assets: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    coverage: tuple[float, float] = (0.0, 0.0)  # mean error of the 90 % band, before and after


@dataclass(frozen=True)
class Judgement:
    """What became of a search: the numbers to take over, none if the present ones stay."""

    params: dict[str, Any]  # the candidate, pruned
    adopted: bool
    reason: str
    validation: Comparison
    held_back: Comparison
    worth: dict[str, float]  # of each changed knob: what the objective loses without it


def judge(objective: WalkForward, best: Mapping[str, Any]) -> Judgement:
    """Prunes, guards and reports."""
    params, worth = prune(objective, best)
    tallies = objective.run([objective.config(params)])
    validation = compare(objective, tallies, objective.dealt == folds.VALIDATION)
    held_back = compare(objective, tallies, objective.dealt == folds.HELD_BACK)
    refusal = "the search found nothing better than the present numbers"
    if params:
        refusal = _refusal(validation, _halves(objective, tallies))
    reason = refusal or "the gain is clear on the validation part"
    return Judgement(params, refusal is None, reason, validation, held_back, worth)


def prune(objective: WalkForward, best: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The knobs of the best candidate that earn their change, and what each is worth."""
    changed = {name: value for name, value in best.items() if value != getattr(objective.present, name)}
    if not changed:
        return {}, {}
    without = [{other: value for other, value in changed.items() if other != name} for name in changed]
    whole, *lacking = objective.many([changed, *without])
    worth = {name: value - whole for name, value in zip(changed, lacking, strict=True)}
    lean = {name: value for name, value in changed.items() if worth[name] > NEEDLESS}
    if len(lean) < len(changed) and lean and objective(lean) > whole + NEEDLESS * (len(changed) - len(lean)):
        lean = changed  # the knobs stand in for each other
    if whole >= 1 or not lean:
        return {}, worth
    return lean, {name: worth[name] for name in lean}


def compare(objective: WalkForward, tallies: Tallies, mask: np.ndarray) -> Comparison:
    """One trial against the present configuration on the bins of a mask."""
    present, metric = objective.present_tallies, objective.metric
    point = ratios(tallies, present, metric, mask)[0]
    drawn = _resampled(objective, tallies, mask)
    together = pooled(drawn)
    low, high = np.percentile(together, [2.5, 97.5])
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    spread = zip(objective.history.assets, point, *ends, strict=True)
    errors = (float(coverage_error(given, mask).mean()) for given in (present, tallies))
    return Comparison(
        ratio=float(pooled(point)),
        low=float(low),
        high=float(high),
        sure=float((together < 1).mean()),
        assets={asset: (float(ratio), float(a), float(b)) for asset, ratio, a, b in spread},
        coverage=(next(errors), next(errors)),
    )


def _resampled(objective: WalkForward, tallies: Tallies, mask: np.ndarray) -> np.ndarray:
    """The ratio of every asset in every sample of blocks: [samples, assets]."""
    generator, columns = np.random.default_rng(SEED), []
    longest = int(mask.sum(1).max(initial=1))
    starts = generator.random((SAMPLES, -(-longest // BLOCK)))
    for asset, bins in enumerate(mask):
        places = np.flatnonzero(bins)
        wanted = -(-len(places) // BLOCK)
        blocks = (starts[:, :wanted, None] * len(places)).astype(int) + np.arange(BLOCK)
        chosen = places[blocks % max(1, len(places))].reshape(SAMPLES, -1)
        ours, theirs = (_loss(given, objective.metric, asset, chosen) for given in (tallies, objective.present_tallies))
        columns.append(np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1.0), 1.0))
    return np.stack(columns, 1)


def _loss(tallies: Tallies, metric: str, asset: int, chosen: np.ndarray) -> np.ndarray:
    """Of one asset, in every sample."""
    drawn = Tallies(*(part[0, asset][chosen][:, None] for part in tallies))
    return mean_loss(drawn, metric, np.ones(chosen.shape[1], bool))[:, 0]


def _halves(objective: WalkForward, tallies: Tallies) -> list[float]:
    """The ratio in the earlier and in the later half of the validation part."""
    mask = objective.dealt == folds.VALIDATION
    later = np.cumsum(mask, 1) > mask.sum(1, keepdims=True) // 2
    parts = (mask & ~later, mask & later)
    return [float(pooled(ratios(tallies, objective.present_tallies, objective.metric, part))[0]) for part in parts]


def _refusal(validation: Comparison, halves: list[float]) -> str | None:
    if validation.ratio > 1 - GAIN_MIN or validation.sure < SURE:
        return (
            f"no clear gain on the validation part: {100 * (1 - validation.ratio):.2f} % "
            f"[{100 * (1 - validation.high):.2f}, {100 * (1 - validation.low):.2f}]"
        )
    if max(halves) >= 1:
        return "the gain on the validation part does not hold in both its halves"
    losers = [asset for asset, (ratio, low, _) in validation.assets.items() if ratio > 1 + ASSET_LOSS_MAX and low > 1]
    if losers:
        return f"it clearly harms {', '.join(losers)} on the validation part"
    return None
