"""One asset's history as a picture: a single HTML file with inline SVG, for a screen or a phone, by day or night.

    value, forecast and band | weights of the kernels | Hölder exponent | CUSUM and its threshold

A dashed line marks each regime change, a shade each stretch of emergency. Nothing is fetched and no script runs, so
the file can be kept, mailed, or shown in a notebook.
"""

import html
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .svg import (
    HEIGHT,
    WIDTH,
    Track,
    average,
    bins_of,
    highest,
    key,
    lowest,
    mean,
    number,
    ruler,
    rules,
    shades,
    span_of,
)

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
h1 { font-size: 1.25rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: .95rem; margin: 0; font-weight: 600 }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0 0 1rem; color: var(--soft) }
.facts b { color: var(--ink); font-weight: 600 }
figure { margin: 0 0 1.5rem }
figcaption { display: flex; flex-wrap: wrap; gap: .1rem .9rem; align-items: baseline; margin-bottom: .55rem }
.key { color: var(--soft); font-size: .85rem; white-space: nowrap }
.key i { display: inline-block; width: .9em; height: .6em; margin-right: .35em; border-radius: 2px }
.key .rule { width: 0; height: 1em; border-left: 2px dashed var(--red); border-radius: 0; vertical-align: -.15em }
.plot { display: flex; gap: .4rem }
.y { position: relative; width: 4.2rem; text-align: right }
.y span { position: absolute; right: 0; transform: translateY(-50%) }
.y, .x { color: var(--soft); font-size: .75rem; font-variant-numeric: tabular-nums }
.x { display: flex; justify-content: space-between; padding: .15rem 0 0 4.6rem; gap: .5rem }
svg { flex: 1; min-width: 0; display: block; border: 1px solid var(--grid); border-radius: 4px }
.tall { height: clamp(14rem, 42vh, 24rem) } .low { height: clamp(7rem, 18vh, 11rem) }
path, line { vector-effect: non-scaling-stroke; fill: none; stroke-width: 1.5 }
@media (max-width: 40rem) { .y { width: 3.4rem } .x { padding-left: 3.8rem } .x :nth-child(2) { display: none } }
"""


@dataclass(frozen=True)
class Page:
    """A picture: a notebook shows it, `save` keeps it."""

    html: str

    def save(self, path: Path | str) -> Path:
        """Writes one file that needs no other."""
        Path(path).write_text(self.html, encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str:
        """In a frame, so that its style stays its own."""
        framed = html.escape(self.html)
        return f'<iframe srcdoc="{framed}" style="width:100%;height:70rem;border:0" title="history"></iframe>'


class History(NamedTuple):
    """What the figures are drawn from; all of one length."""

    values: np.ndarray
    forecast: np.ndarray  # the one that was out when the value came
    lower: np.ndarray
    upper: np.ndarray
    accepted: np.ndarray
    changes: np.ndarray
    emergencies: np.ndarray
    telemetry: Any
    times_ns: np.ndarray
    bins: list[slice]

    def told(self, name: str) -> np.ndarray:
        """A telemetry leaf where there was a forecast."""
        return np.where(self.accepted, np.asarray(getattr(self.telemetry, name), np.float64), np.nan)


def page(results: Any, values: Any, times_ns: Any, title: str = "") -> Page:
    """Draws a history: results [t] as of a replay, entry t made after values[t] at times_ns[t]."""
    history = _history(results, np.asarray(values, np.float64), np.asarray(times_ns))
    figures = [_value(history), _weights(history), _roughness(history), _cusum(history)]
    shown = html.escape(title or "Universal predictor")
    return Page(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{shown}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>{shown}</h1>{_facts(history)}{''.join(figures)}</body></html>\n"
    )


def _history(results: Any, values: np.ndarray, times_ns: np.ndarray) -> History:
    accepted = np.asarray(results.rejected) == 0
    if not accepted.shape == values.shape == times_ns.shape or accepted.ndim != 1 or not len(values):
        raise ValueError(
            "a picture is of the history of one asset: results, values and times of one length, at least 1, got "
            f"{accepted.shape}, {values.shape} and {times_ns.shape}. Of several assets draw results[index]."
        )
    telemetry = results.telemetry
    changes, emergencies = (
        np.asarray(flag, bool) & accepted for flag in (telemetry.regime_change_detected, telemetry.emergency_mode)
    )
    forecasts = (results.reference_prediction, results.confidence_lower, results.confidence_upper)
    forecast, lower, upper = (made_before(numbers, accepted) for numbers in forecasts)
    bins = bins_of(len(values))
    return History(values, forecast, lower, upper, accepted, changes, emergencies, telemetry, times_ns, bins)


def made_before(forecasts: Any, accepted: np.ndarray) -> np.ndarray:
    """At each value the forecast that was out when it came: the last one made before it."""
    known = np.where(accepted, np.arange(len(accepted)), -1)
    newest = np.concatenate([[-1], np.maximum.accumulate(known)[:-1]])
    return np.where(newest >= 0, np.asarray(forecasts, np.float64)[newest], np.nan)


def _value(history: History) -> str:
    values, lower, upper, bins = history.values, history.lower, history.upper, history.bins
    tracks = [
        Track("band", "var(--blue)", highest(upper, bins), lowest(lower, bins), opacity=0.22),
        Track("value", "var(--ink)", highest(values, bins), lowest(values, bins), outlined=True),
        Track("forecast", "var(--blue)", mean(history.forecast, bins)),
    ]
    return _figure("Value, forecast and band", tracks, history, span_of(values, lower, upper), "tall")


def _weights(history: History) -> str:
    """Areas on top of each other."""
    weights = np.where(history.accepted[:, None], history.telemetry.weights, np.nan)
    edges = [mean(edge, history.bins) for edge in np.cumsum(weights, 1).T]
    floors = [np.where(np.isfinite(edges[0]), 0.0, np.nan), *edges]
    tracks = [Track(name, f"var(--k{index})", edges[index], floors[index]) for index, name in enumerate(KERNELS)]
    return _figure("Weights of the kernels", tracks, history, (0.0, 1.0), "low", marked=False)


def _roughness(history: History) -> str:
    exponent = history.told("holder_exponent")
    tracks = [Track("exponent", "var(--blue)", mean(exponent, history.bins))]
    return _figure("Hölder exponent", tracks, history, span_of(exponent, np.array([0.0, 1.0])), "low")


def _cusum(history: History) -> str:
    threshold, up, down = (history.told(name) for name in ("adaptive_threshold", "cusum_drift", "cusum_drift_down"))
    tracks = [
        Track("threshold", "var(--soft)", mean(threshold, history.bins), dashed=True),
        Track("upwards", "var(--blue)", highest(up, history.bins)),
        Track("downwards", "var(--k1)", highest(down, history.bins)),
    ]
    return _figure("CUSUM", tracks, history, span_of(threshold, up, np.zeros(1)), "low")


def _figure(
    title: str, tracks: list[Track], history: History, span: tuple[float, float], size: str, marked: bool = True
) -> str:
    keys, marks = _marks(history) if marked else ("", "")
    keys = "".join(track.key() for track in tracks) + keys
    lines, labels = ruler(span)
    drawn = "".join(track.draw(span) for track in tracks)
    moments = "".join(f"<span>{_moment(history.times_ns, index)}</span>" for index in _ends(len(history.values)))
    return (
        f'<figure role="img" aria-label="{html.escape(title)} over time">'
        f'<figcaption><h2>{html.escape(title)}</h2>{keys}</figcaption><div class="plot"><div class="y">{labels}</div>'
        f'<svg class="{size}" preserveAspectRatio="none" viewBox="0 0 {WIDTH} {HEIGHT}">{lines}{marks}{drawn}</svg>'
        f'</div><div class="x">{moments}</div></figure>'
    )


def _marks(history: History) -> tuple[str, str]:
    """Regime changes and emergencies: what they are called, and where they are."""
    keys, drawn = "", ""
    if history.emergencies.any():
        keys += key("emergency", "background:var(--red);opacity:.35")
        drawn += shades(history.emergencies, history.bins, "var(--red)")
    if history.changes.any():
        keys += '<span class="key"><i class="rule"></i>regime change</span>'
        drawn += rules(history.changes, history.bins, "var(--red)")
    return keys, drawn


def _facts(history: History) -> str:
    values, accepted = history.values, history.accepted
    judged = accepted & np.isfinite(history.forecast)
    inside = (history.lower <= values) & (values <= history.upper)
    before = np.concatenate([[np.nan], values[:-1]])
    error, naive = (average(abs(values - guess)[judged]) for guess in (history.forecast, before))
    told = {
        "values": f"{len(values):,}",
        "rejected": f"{np.count_nonzero(~accepted):,}",
        "mean error": number(float(f"{error:.4g}")),
        "if the last value were the forecast": number(float(f"{naive:.4g}")),
        "inside the band": f"{100 * average(inside[judged]):.1f} %",
        "regime changes": f"{np.count_nonzero(history.changes):,}",
        "ticks in emergency": f"{np.count_nonzero(history.emergencies):,}",
    }
    return '<p class="facts">' + "".join(f"<span>{name} <b>{fact}</b></span>" for name, fact in told.items()) + "</p>"


def _ends(length: int) -> list[int]:
    """The first, the middle and the last, as far as there are so many."""
    return sorted({0, length // 2, length - 1})


def _moment(times_ns: np.ndarray, index: int) -> str:
    """A moment as short as the span allows; plain nanoseconds where they mean no date."""
    seconds = int(times_ns[index]) // 10**9
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return str(times_ns[index])
    days = (int(times_ns[-1]) - int(times_ns[0])) / 1e9 / SECONDS_PER_DAY
    return moment.strftime("%Y-%m-%d" if days > 3 else "%Y-%m-%d %H:%M:%S")
