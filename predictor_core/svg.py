"""Curves as SVG, for `charts`: lines, areas, shades and rulers over a history that may be longer than a screen is wide.

Lines are SVG that stretches with the page; letters are HTML, which does not. A long history is reduced to a few hundred
columns, each with the extremes of what lies in it, so that no spike is lost.
"""

import html
import math
from typing import NamedTuple

import numpy as np

COLUMNS_MAX = 600
WIDTH, HEIGHT = 1000, 300  # of every SVG's own units
TICKS_MAX = 5


class Track(NamedTuple):
    """A line, or the area between two."""

    name: str
    colour: str
    high: np.ndarray
    low: np.ndarray | None = None
    opacity: float = 1.0
    outlined: bool = False  # an area that may be as thin as a line
    dashed: bool = False

    def key(self) -> str:
        return key(self.name, f"background:{self.colour};opacity:{max(self.opacity, 0.35)}")

    def draw(self, span: tuple[float, float]) -> str:
        x = np.linspace(0, WIDTH, len(self.high)) if len(self.high) > 1 else np.array([WIDTH / 2])
        high = scaled(self.high, span)
        if self.low is None:
            dashes = ' stroke-dasharray="6 3"' if self.dashed else ""
            return f'<path d="{_line(x, high)}" stroke="{self.colour}"{dashes}/>'
        edge = f' stroke="{self.colour}"' if self.outlined else ""
        area = _area(x, high, scaled(self.low, span))
        return f'<path d="{area}" style="fill:{self.colour};fill-opacity:{self.opacity}"{edge}/>'


def key(name: str, style: str) -> str:
    """A name beside a spot of its colour."""
    return f'<span class="key"><i style="{style}"></i>{html.escape(name)}</span>'


def shades(flagged: np.ndarray, bins: list[slice], colour: str) -> str:
    """A shade over each stretch that is flagged."""
    width = WIDTH / max(len(bins), 1)
    return "".join(
        f'<rect x="{start * width:.1f}" width="{(stop - start) * width:.1f}" y="0" height="{HEIGHT}" '
        f'style="fill:{colour};fill-opacity:.14"/>'
        for start, stop in _runs(np.array([flagged[part].any() for part in bins], bool))
    )


def rules(flagged: np.ndarray, bins: list[slice], colour: str) -> str:
    """A dashed line down at each moment that is flagged."""
    width = WIDTH / max(len(bins), 1)
    places = [(index + 0.5) * width for index, part in enumerate(bins) if flagged[part].any()]
    return "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="{colour}" stroke-dasharray="4 3"/>'
        for x in places
    )


def ruler(span: tuple[float, float]) -> tuple[str, str]:
    """Lines across at round numbers, and the numbers beside them."""
    low, high = span
    marks = _round_numbers(low, high)
    lines, labels = [], []
    for mark in marks:
        y = (high - mark) / (high - low)
        lines.append(f'<line x1="0" x2="{WIDTH}" y1="{y * HEIGHT:.1f}" y2="{y * HEIGHT:.1f}" stroke="var(--grid)"/>')
        labels.append(f'<span style="top:{100 * y:.1f}%">{number(mark)}</span>')
    return "".join(lines), "".join(labels)


def _round_numbers(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between the two, a few of them."""
    rough = (high - low) / TICKS_MAX
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), 10 * power)
    first, last = math.ceil(low / step), math.floor(high / step)
    # Far from zero the steps may be finer than the numbers themselves.
    return [index * step for index in range(first, last + 1)][: 2 * TICKS_MAX] or [low]


def bins_of(length: int) -> list[slice]:
    edges = np.linspace(0, length, min(length, COLUMNS_MAX) + 1).astype(int)
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def mean(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([average(numbers[part]) for part in bins])


def highest(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([max(_known(numbers[part]), default=math.nan) for part in bins])


def lowest(numbers: np.ndarray, bins: list[slice]) -> np.ndarray:
    return np.array([min(_known(numbers[part]), default=math.nan) for part in bins])


def average(numbers: np.ndarray) -> float:
    known = _known(numbers)
    return float(known.mean()) if len(known) else math.nan


def span_of(inner: np.ndarray, *others: np.ndarray) -> tuple[float, float]:
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


def scaled(numbers: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    low, high = span
    return np.clip((high - numbers) / (high - low), -1, 2) * HEIGHT


def number(value: float) -> str:
    """Short, and without an exponent where it can be."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.6g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.3g}"


def _known(numbers: np.ndarray) -> np.ndarray:
    return numbers[np.isfinite(numbers)]


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
