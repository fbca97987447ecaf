"""Plots as SVG text: a few lines over one axis each way, or bars in a row. Pure."""

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 44
COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#c79a1e", "#8a5fd0", "#777")
TICKS = 5
Points = Sequence[tuple[float, float]]


def lines(title: str, x: str, y: str, series: Mapping[str, Points], log_x: bool = False, log_y: bool = False) -> str:
    """A line with dots for each series."""
    every = [point for points in series.values() for point in points]
    across = _axis([point[0] for point in every], log_x, LEFT, WIDTH - RIGHT)
    up = _axis([point[1] for point in every], log_y, HEIGHT - BOTTOM, TOP)
    drawn = [_grid(across, up, x, y)]
    for (name, points), colour, place in zip(series.items(), COLOURS, range(len(COLOURS)), strict=False):
        at = [(across.place(a), up.place(b)) for a, b in points]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
        drawn.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in at]
        drawn.append(_key(name, colour, place))
    return _svg(title, drawn)


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A bar for each row, of parts laid end to end."""
    longest = max(sum(parts.values()) for parts in rows.values())
    left, step = 215, (HEIGHT - TOP - BOTTOM) / len(rows)
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    drawn = []
    for row, (label, parts) in enumerate(rows.items()):
        x, y = float(left), TOP + row * step
        drawn.append(_text(left - 8, y + step * 0.6, label, "end"))
        for name, value in parts.items():
            width = value / longest * (WIDTH - RIGHT - left - 40)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{step * 0.8:.1f}"'
            drawn.append(f'<rect {place} fill="{colour}"/>')
            x += width
        drawn.append(_text(x + 4, y + step * 0.6, _short(sum(parts.values()))))
    drawn += [_key(name, COLOURS[place % len(COLOURS)], place) for place, name in enumerate(names)]
    drawn.append(_text(WIDTH / 2, HEIGHT - 12, unit, "middle"))
    return _svg(title, drawn)


def stacked(title: str, x: str, panels: Mapping[str, Points]) -> str:
    """Several curves under each other, each in a panel of its own, over one axis across."""
    every = [a for points in panels.values() for a, _ in points]
    across, step = _axis(every, False, LEFT, WIDTH - RIGHT), (HEIGHT * 2 - TOP - BOTTOM) / len(panels)
    drawn = []
    for place, (name, points) in enumerate(panels.items()):
        top, bottom = TOP + place * step + 16, TOP + (place + 1) * step - 8
        up = _axis([b for _, b in points], False, bottom, top)
        path = "L".join(f"{across.place(a):.1f} {up.place(b):.1f}" for a, b in points)
        drawn.append(_line(LEFT, bottom, WIDTH - RIGHT, bottom) + _line(LEFT, top, WIDTH - RIGHT, top))
        drawn.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[place % len(COLOURS)]}" stroke-width="1.5"/>')
        drawn += [_text(LEFT - 6, up.place(n) + 4, _short(n), "end") for n in (0.0, up.labels()[-1])]
        drawn.append(_text(LEFT, top - 4, name))
    for second in across.labels():
        drawn.append(_text(across.place(second), 2 * HEIGHT - BOTTOM + 10, _short(second), "middle"))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, 2 * HEIGHT - 14, x, "middle"))
    return _svg(title, drawn, 2 * HEIGHT)


class _Axis:
    """Numbers to places, and the numbers worth a label."""

    def __init__(self, low: float, high: float, log: bool, start: float, end: float) -> None:
        self._low, self._high, self._log, self._start, self._end = low, high, log, start, end

    def place(self, number: float) -> float:
        low, high, at = (math.log10(n) if self._log else n for n in (self._low, self._high, number))
        return self._start + (at - low) / (high - low) * (self._end - self._start)

    def labels(self) -> list[float]:
        if self._log:
            first, last = math.ceil(math.log10(self._low) - 1e-9), math.floor(math.log10(self._high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        return [self._low + (self._high - self._low) * k / (TICKS - 1) for k in range(TICKS)]


def _axis(numbers: Sequence[float], log: bool, start: float, end: float) -> _Axis:
    if log:
        low, high = 10.0 ** math.floor(math.log10(min(numbers))), 10.0 ** math.ceil(math.log10(max(numbers)))
        return _Axis(low, high if high > low else 10 * low, True, start, end)
    return _Axis(0.0, max(numbers) * 1.05 or 1.0, False, start, end)


def _grid(across: _Axis, up: _Axis, x: str, y: str) -> str:
    parts = []
    for number in across.labels():
        at = across.place(number)
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM) + _text(at, HEIGHT - BOTTOM + 14, _short(number), "middle"))
    for number in up.labels():
        at = up.place(number)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at) + _text(LEFT - 6, at + 4, _short(number), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x, "middle"))
    parts.append(_text(LEFT - 56, TOP - 8, y))
    return "".join(parts)


def _key(name: str, colour: str, place: int) -> str:
    x = LEFT + 90 + 105 * place
    return f'<rect x="{x}" y="{TOP - 16}" width="10" height="8" fill="{colour}"/>' + _text(x + 14, TOP - 8, name)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _short(number: float) -> str:
    if number >= 1e6:
        return f"{number / 1e6:.3g}M"
    return f"{number / 1e3:.3g}k" if number >= 1000 else f"{number:.3g}"


def _svg(title: str, drawn: Sequence[str], height: int = HEIGHT) -> str:
    style = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" font-family="system-ui, sans-serif" font-size="11"'
    back = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    head = f'<text x="8" y="14" font-size="13" font-weight="600">{html.escape(title)}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {style}>{back}{head}{"".join(drawn)}</svg>\n'
