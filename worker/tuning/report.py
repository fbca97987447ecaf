"""A tuning as one HTML file: how the search went, which knobs matter, and what is gained on ticks it never saw.

Pictures are inline SVG, for a screen or a phone, by day or night; nothing is loaded from elsewhere.
"""

import html
import math
from collections.abc import Sequence
from pathlib import Path

from predictor_core.tuning import Comparison
from worker.errors import BadInput
from worker.tuning.search import Outcome

WIDTH, HEIGHT = 720, 220
ROW = 24  # pixels of a bar or of an interval
ASSETS_MAX = 40
STYLE = """
:root { color-scheme: light dark; --back: #fcfcfb; --ink: #1c1c1a; --soft: #6d6c66; --blue: #2a78d6; --red: #d03b3b;
  --green: #16845a }
@media (prefers-color-scheme: dark) { :root { --back: #1a1a19; --ink: #f0efea; --soft: #a3a199; --blue: #3987e5;
  --red: #e66767; --green: #2fbf88 } }
body { margin: 0 auto; padding: 1rem; max-width: 48rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif }
h1 { font-size: 1.25rem; margin: 1.5rem 0 .25rem } h2 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600 }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0 0 1rem; color: var(--soft) }
.facts b { color: var(--ink); font-weight: 600 } figure { margin: 0 0 1.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .8rem .15rem 0; text-align: left } th { color: var(--soft); font-weight: 400 }
svg { width: 100%; height: auto } text { fill: var(--ink); font-size: 12px } text.soft { fill: var(--soft) }
path, line { fill: none; stroke-width: 1.5 }
"""


def write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes the page of all groups."""
    pages = "".join(_section(outcome) for outcome in outcomes)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tuning</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{pages}</body></html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def gain(comparison: Comparison) -> str:
    """In per cent, with its interval."""
    ends = (comparison.ratio, comparison.high, comparison.low)
    return "{:+.2f} % [{:+.2f}, {:+.2f}]".format(*(100 * (1 - end) for end in ends))


def _section(outcome: Outcome) -> str:
    judgement, result = outcome.judgement, outcome.result
    title = html.escape(outcome.group or f"{len(outcome.assets)} assets")
    facts = {
        "verdict": "taken over" if judgement.adopted else "the present numbers stay",
        "because": judgement.reason,
        "gain on validation": gain(judgement.validation),
        "gain on held-back ticks": gain(judgement.held_back),
        "trials": f"{result.total_iterations}{', stopped early' if result.early_stopped else ''}",
        "seconds": f"{outcome.seconds:.0f}",
    }
    told = "".join(f"<span>{name} <b>{html.escape(fact)}</b></span>" for name, fact in facts.items())
    parts = [
        _figure("Objective of each trial, and the best so far (1 is the present configuration)", _search(outcome)),
        _figure("Share of each knob in telling good trials from others", _bars(outcome.study.importance())),
        _figure(
            "Gain on held-back ticks in per cent: point and 95 % interval, asset by asset",
            _intervals(judgement.held_back),
        ),
        _numbers(outcome),
    ]
    return f'<h1>{title}</h1><p class="facts">{told}</p>{"".join(parts)}'


def _figure(title: str, drawing: str) -> str:
    title = html.escape(title)
    return f'<figure role="img" aria-label="{title}"><figcaption><h2>{title}</h2></figcaption>{drawing}</figure>'


def _search(outcome: Outcome) -> str:
    values = [trial.value for trial in outcome.study.trials]
    known = sorted(value for value in values if math.isfinite(value))
    low, high = known[0], max(1.0, known[int(0.9 * (len(known) - 1))])  # the worst tenth would flatten the rest
    reach = (high - low) or 1e-9

    def place(at: int, value: float) -> tuple[float, float]:
        across = 10 + (WIDTH - 90) * at / max(1, len(values) - 1)
        return across, 10 + (HEIGHT - 30) * (1 - (min(value, high) - low) / reach)

    best, line, dots = math.inf, [], []
    for at, value in enumerate(values):
        best = min(best, value)
        x, y = place(at, value if math.isfinite(value) else high)
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:var(--blue);fill-opacity:.5"/>')
        line.append("{:.1f} {:.1f}".format(*place(at, best)))
    labels = "".join(
        f'<text class="soft" x="{WIDTH - 70}" y="{place(0, value)[1] + 4:.0f}">{value:.4f}</text>'
        for value in (low, high)
    )
    return _svg(HEIGHT, f'<path d="M{"L".join(line)}" stroke="var(--red)"/>{"".join(dots)}{labels}')


def _bars(shares: dict[str, float]) -> str:
    if not shares:
        return "<p>too few trials to say</p>"
    largest = max(*shares.values(), 1e-9)
    rows = [
        f'<text x="0" y="{ROW * row + 16}">{html.escape(name)}</text>'
        f'<rect x="190" y="{ROW * row + 5}" height="14" width="{440 * share / largest:.1f}" style="fill:var(--blue)"/>'
        f'<text class="soft" x="{200 + 440 * share / largest:.0f}" y="{ROW * row + 16}">{share:.2f}</text>'
        for row, (name, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1]))
    ]
    return _svg(ROW * len(rows) + 4, "".join(rows))


def _intervals(held: Comparison) -> str:
    gains = {asset: tuple(100 * (1 - end) for end in spread) for asset, spread in held.assets.items()}
    shown = dict(sorted(gains.items(), key=lambda item: item[1][0])[:ASSETS_MAX])  # the worst first
    shown["all together"] = tuple(100 * (1 - end) for end in (held.ratio, held.low, held.high))
    edge = max(0.1, *(abs(end) for spread in shown.values() for end in spread))

    def across(gain: float) -> float:
        return 420 + 270 * gain / edge

    rows = []
    for row, (asset, (point, high, low)) in enumerate(shown.items()):
        y = ROW * row + 12
        colour = "var(--green)" if low > 0 else "var(--red)" if high < 0 else "var(--soft)"
        rows.append(
            f'<text x="0" y="{y + 4}">{html.escape(asset[:20])} {point:+.2f}</text>'
            f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}"/>'
            f'<circle cx="{across(point):.1f}" cy="{y}" r="4" style="fill:{colour}"/>'
        )
    height = ROW * len(rows)
    nought = f'<line x1="420" x2="420" y1="0" y2="{height}" stroke="var(--ink)" stroke-dasharray="3 3"/>'
    return _svg(height + 4, nought + "".join(rows))


def _numbers(outcome: Outcome) -> str:
    judgement = outcome.judgement
    rows = "".join(
        f"<tr><td>{name}</td><td>{_number(getattr(outcome.present, name))}</td><td>{_number(value)}</td>"
        f"<td>{100 * judgement.worth.get(name, 0.0):+.3f} %</td></tr>"
        for name, value in judgement.params.items()
    )
    head = "<tr><th>knob</th><th>before</th><th>candidate</th><th>what the search loses without it</th></tr>"
    before, after = judgement.held_back.coverage
    coverage = f"{100 * before:.2f} points before, {100 * after:.2f} after"
    return f"<table>{head}{rows}</table><p>mean error of the 90 % band on held-back ticks: {coverage}</p>"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else html.escape(str(value))


def _svg(height: int, inner: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}">{inner}</svg>'
