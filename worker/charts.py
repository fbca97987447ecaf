"""One asset's history as a picture: a single HTML file with inline SVG, for a screen or a phone, by day or night.

    value, forecast and band | regime changes, emergencies | weights | Hölder exponent | CUSUM and its threshold

Lines are SVG that stretches; letters are HTML, which does not. Long histories are reduced to a few hundred columns,
each with the extremes of what lies in it, so that no spike is lost.
"""

import html
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

COLUMNS_MAX = 600
WIDTH, HEIGHT = 1000, 300  # of every SVG's own units
KERNELS = ("A Hilbert", "B Galerkin", "C Lévy", "D signature")
SECONDS_PER_DAY = 86_400

STYLE = """
:root { color-scheme: light dark; --back: #fcfcfb; --ink: #1c1c1a; --soft: #6d6c66; --grid: #e4e3dd; --blue: #2a78d6;
  --red: #d03b3b; --k0: #2a78d6; --k1: #eb6834; --k2: #1baf7a; --k3: #c79a1e }
@media (prefers-color-scheme: dark) { :root { --back: #1a1a19; --ink: #f0efea; --soft: #a3a199; --grid: #33322f;
  --blue: #3987e5; --red: #e66767; --k0: #3987e5; --k1: #d95926; --k2: #199e70; --k3: #c98500 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif }
h1 { font-size: 1.25rem; margin: 0 0 .25rem }
h2 { font-size: .95rem; margin: 0; font-weight: 600 }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0 0 1rem; color: var(--soft) }
.facts b { color: var(--ink); font-weight: 600 }
figure { margin: 0 0 1.5rem }
figcaption { display: flex; flex-wrap: wrap; gap: .1rem .9rem; align-items: baseline; margin-bottom: .3rem }
.key { color: var(--soft); font-size: .85rem; white-space: nowrap }
.key i { display: inline-block; width: .9em; height: .6em; margin-right: .35em; border-radius: 2px }
.plot { display: flex; gap: .4rem }
.y { display: flex; flex-direction: column; justify-content: space-between; width: 4.2rem; text-align: right }
.y, .x { color: var(--soft); font-size: .75rem; font-variant-numeric: tabular-nums }
.x { display: flex; justify-content: space-between; padding-left: 4.6rem; gap: .5rem }
svg { flex: 1; min-width: 0; display: block; border: 1px solid var(--grid); border-radius: 4px }
.tall { height: clamp(14rem, 42vh, 24rem) } .low { height: clamp(7rem, 18vh, 11rem) }
path, line { vector-effect: non-scaling-stroke; fill: none; stroke-width: 1.5 }
"""


class Track(NamedTuple):
    """A line, or the area between two."""

    name: str
    colour: str
    high: np.ndarray
    low: np.ndarray | None = None
    opacity: float = 1.0


def write_picture(path: Path | str, results: Any, values: np.ndarray, times_ns: np.ndarray, title: str = "") -> None:
    """Draws a history: results [t] as of a replay, entry t made after values[t] at times_ns[t]."""
    Path(path).write_text(picture(results, np.asarray(values), np.asarray(times_ns), title), encoding="utf-8")


def picture(results: Any, values: np.ndarray, times_ns: np.ndarray, title: str) -> str:
    """The whole page."""
    telemetry, accepted = results.telemetry, np.asarray(results.rejected) == 0
    bins = _bins(len(values))
    forecast = _made_before(results.reference_prediction, accepted)
    lower, upper = (_made_before(edge, accepted) for edge in (results.confidence_lower, results.confidence_upper))
    changes, emergencies = (
        np.asarray(flag, bool) & accepted for flag in (telemetry.regime_change_detected, telemetry.emergency_mode)
    )
    marks = _marks(changes, emergencies, bins)
    shares = np.cumsum(np.where(accepted[:, None], telemetry.weights, np.nan), 1)
    figures = [
        _figure(
            "Value, forecast and band",
            [
                Track("band", "var(--blue)", _highest(upper, bins), _lowest(lower, bins), opacity=0.22),
                Track("forecast", "var(--blue)", _mean(forecast, bins)),
                Track("value", "var(--ink)", _highest(values, bins), _lowest(values, bins)),
            ],
            marks,
            _span(values, lower, upper),
            times_ns,
            "tall",
        ),
        _figure(
            "Weights of the kernels",
            [
                Track(name, f"var(--k{k})", _mean(shares[:, k], bins), _mean(shares[:, k - 1], bins) if k else None)
                for k, name in enumerate(KERNELS)
            ],
            "",
            (0.0, 1.0),
            times_ns,
            "low",
            stacked=True,
        ),
        _figure(
            "Hölder exponent",
            [Track("exponent", "var(--blue)", _mean(_where(accepted, telemetry.holder_exponent), bins))],
            marks,
            _span(_where(accepted, telemetry.holder_exponent), np.array([0.0, 1.0])),
            times_ns,
            "low",
        ),
        _figure(
            "CUSUM",
            [
                Track("threshold", "var(--red)", _mean(_where(accepted, telemetry.adaptive_threshold), bins)),
                Track("upwards", "var(--blue)", _highest(_where(accepted, telemetry.cusum_drift), bins)),
                Track("downwards", "var(--k1)", _highest(_where(accepted, telemetry.cusum_drift_down), bins)),
            ],
            marks,
            _span(_where(accepted, telemetry.adaptive_threshold), _where(accepted, telemetry.cusum_drift), np.zeros(1)),
            times_ns,
            "low",
        ),
    ]
    facts = _facts(values, forecast, lower, upper, accepted, changes, emergencies)
    shown = html.escape(title or "Universal predictor")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{shown}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>{shown}</h1>{facts}{''.join(figures)}</body></html>\n"
    )


def _facts(
    values: np.ndarray,
    forecast: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    accepted: np.ndarray,
    changes: np.ndarray,
    emergencies: np.ndarray,
) -> str:
    judged = accepted & np.isfinite(forecast)
    inside = (lower <= values) & (values <= upper)
    before = np.concatenate([[np.nan], values[:-1]])
    error, naive = (_average(abs(values - guess)[judged]) for guess in (forecast, before))
    told = {
        "values": f"{len(values):,}",
        "rejected": f"{np.count_nonzero(~accepted):,}",
        "mean error": _number(error),
        "of the last value as forecast": _number(naive),
        "inside the band": f"{100 * _average(inside[judged]):.1f} %",
        "regime changes": str(np.count_nonzero(changes)),
        "ticks in emergency": str(np.count_nonzero(emergencies)),
    }
    return '<p class="facts">' + "".join(f"<span>{name} <b>{fact}</b></span>" for name, fact in told.items()) + "</p>"


def _figure(
    title: str,
    tracks: list[Track],
    marks: str,
    span: tuple[float, float],
    times_ns: np.ndarray,
    size: str,
    stacked: bool = False,
) -> str:
    keys = "".join(_key(track.colour, track.name) for track in tracks)
    if marks:
        keys += _key("var(--red)", "regime change, emergency")
    drawn = "".join(_draw(track, span, stacked) for track in tracks)
    low, high = span
    labels = "".join(f"<span>{_number(value)}</span>" for value in (high, (low + high) / 2, low))
    first, last = _moment(times_ns, 0), _moment(times_ns, -1)
    return (
        f'<figure role="img" aria-label="{html.escape(title)} over time">'
        f'<figcaption><h2>{html.escape(title)}</h2>{keys}</figcaption><div class="plot"><div class="y">{labels}</div>'
        f'<svg class="{size}" preserveAspectRatio="none" viewBox="0 0 {WIDTH} {HEIGHT}">{_grid()}{marks}{drawn}</svg>'
        "</div>"
        f'<div class="x"><span>{first}</span><span>{last}</span></div></figure>'
    )


def _key(colour: str, name: str) -> str:
    return f'<span class="key"><i style="background:{colour}"></i>{html.escape(name)}</span>'


def _draw(track: Track, span: tuple[float, float], stacked: bool) -> str:
    x = np.linspace(0, WIDTH, len(track.high)) if len(track.high) > 1 else np.array([WIDTH / 2])
    high = _scaled(track.high, span)
    low = _scaled(track.low, span) if track.low is not None else np.full(len(high), float(HEIGHT))
    if not stacked and track.low is None:
        return f'<path d="{_line(x, high)}" stroke="{track.colour}"/>'
    edge = f'stroke="{track.colour}"' if track.opacity == 1 and not stacked else ""
    area = _area(x, high, low)
    return f'<path d="{area}" style="fill:{track.colour};fill-opacity:{track.opacity}" {edge}/>'


def _line(x: np.ndarray, y: np.ndarray) -> str:
    """A path that is lifted over what is not there."""
    pieces = []
    for start, stop in _runs(np.isfinite(y)):
        points = [f"{a:.1f} {b:.1f}" for a, b in zip(x[start:stop], y[start:stop], strict=True)]
        pieces.append("M" + "L".join(points) + ("h.1" if len(points) == 1 else ""))
    return "".join(pieces)


def _area(x: np.ndarray, high: np.ndarray, low: np.ndarray) -> str:
    pieces = []
    for start, stop in _runs(np.isfinite(high) & np.isfinite(low)):
        there = [f"{a:.1f} {b:.1f}" for a, b in zip(x[start:stop], high[start:stop], strict=True)]
        back = [f"{a:.1f} {b:.1f}" for a, b in zip(x[start:stop], low[start:stop], strict=True)]
        pieces.append("M" + "L".join([*there, *reversed(back)]) + "Z")
    return "".join(pieces)


def _runs(known: np.ndarray) -> list[tuple[int, int]]:
    """Where stretches of True begin and end."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in steps.reshape(-1, 2)]


def _marks(changes: np.ndarray, emergencies: np.ndarray, bins: list[slice]) -> str:
    """A line for each regime change, a shade over each stretch of emergency."""
    scale = WIDTH / max(len(bins), 1)
    shades = [
        f'<rect x="{start * scale:.1f}" width="{(stop - start) * scale:.1f}" y="0" height="{HEIGHT}" '
        'style="fill:var(--red);fill-opacity:.14"/>'
        for start, stop in _runs(np.array([emergencies[part].any() for part in bins], bool))
    ]
    lines = [
        f'<line x1="{(k + 0.5) * scale:.1f}" x2="{(k + 0.5) * scale:.1f}" y1="0" y2="{HEIGHT}" stroke="var(--red)" '
        'stroke-dasharray="4 3"/>'
        for k, part in enumerate(bins)
        if changes[part].any()
    ]
    return "".join(shades + lines)


def _grid() -> str:
    return "".join(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}" stroke="var(--grid)"/>' for y in (75, 150, 225))


def _bins(length: int) -> list[slice]:
    edges = np.linspace(0, length, min(length, COLUMNS_MAX) + 1).astype(int)
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def _made_before(forecasts: Any, accepted: np.ndarray) -> np.ndarray:
    """At each value the forecast that was out when it came: the last one made before it."""
    known = np.where(accepted, np.arange(len(accepted)), -1)
    newest = np.concatenate([[-1], np.maximum.accumulate(known)[:-1]])
    return np.where(newest >= 0, np.asarray(forecasts, np.float64)[newest], np.nan)


def _where(accepted: np.ndarray, numbers: Any) -> np.ndarray:
    return np.where(accepted, np.asarray(numbers, np.float64), np.nan)


def _mean(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([_average(numbers[part]) for part in bins])


def _highest(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([max(_known(numbers[part]), default=math.nan) for part in bins])


def _lowest(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([min(_known(numbers[part]), default=math.nan) for part in bins])


def _known(numbers: np.ndarray) -> np.ndarray:
    return numbers[np.isfinite(numbers)]


def _average(numbers: np.ndarray) -> float:
    known = _known(numbers)
    return float(known.mean()) if len(known) else math.nan


def _span(inner: np.ndarray, *others: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest, with a little air. Of the others only what is not far off the inner ones."""
    known = _known(inner)
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    reach = (high - low) or abs(high) or 1.0
    for numbers in others:
        near = _known(numbers)
        near = near[(near > low - reach) & (near < high + reach)]
        low, high = min(low, near.min(initial=low)), max(high, near.max(initial=high))
    air = 0.04 * ((high - low) or abs(high) or 1.0)
    return low - air, high + air


def _scaled(numbers: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    low, high = span
    return np.clip((high - numbers) / (high - low), -1, 2) * HEIGHT


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _moment(times_ns: np.ndarray, index: int) -> str:
    """A moment as short as the span allows; plain nanoseconds where they mean no date."""
    seconds = int(times_ns[index]) // 10**9
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return str(times_ns[index])
    days = (int(times_ns[-1]) - int(times_ns[0])) / 1e9 / SECONDS_PER_DAY
    return moment.strftime("%Y-%m-%d" if days > 3 else "%Y-%m-%d %H:%M:%S")
