"""The live view of a fleet: one value, drawn on a terminal or told in a line."""

import math
from collections import deque
from dataclasses import dataclass, field

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from state_store import Prediction
from worker.lines import printable
from worker.watch import WorkerView

SPARK = "▁▂▃▄▅▆▇█"
HISTORY = 10  # fits beside the rest in 80 columns
AHEAD_MAX = 4096


@dataclass
class Series:
    """The recent past of one asset: its values as they are sent, its predictions as they are read, which is later."""

    asset: str
    values: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    prediction: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    covered: int = 0
    judged: int = 0
    _ahead: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=AHEAD_MAX))  # not yet predicted after
    _waits: bool = False  # the newest prediction waits for its value

    def value(self, timestamp_ns: int, value: float) -> None:
        """A new value."""
        self.values.append(value)
        self._ahead.append((timestamp_ns, value))
        if self._waits:
            self._judge(value)

    def predict(self, timestamp_ns: int, prediction: float, lower: float, upper: float) -> None:
        """The prediction made after the value of that time, for the value that follows it."""
        self.prediction, self.lower, self.upper = prediction, lower, upper
        while self._ahead and self._ahead[0][0] <= timestamp_ns:
            self._ahead.popleft()
        self._waits = not self._ahead
        if self._ahead:
            self._judge(self._ahead[0][1])

    def _judge(self, value: float) -> None:
        self.judged += 1
        self.covered += self.lower <= value <= self.upper
        self._waits = False


def band(made: Prediction) -> tuple[int, float, float, float]:
    """What the live view shows of a prediction."""
    return made.timestamp_ns, made.reference_prediction, made.confidence_lower, made.confidence_upper


@dataclass(frozen=True)
class Picture:
    """One moment of a fleet."""

    title: str
    elapsed_s: float
    assets: int
    ticks: int  # answered
    rate: float | None
    backlog: int
    oldest_s: float
    latency_ms: dict[str, float]
    workers: list[WorkerView]
    series: list[Series]
    note: str = ""

    def line(self) -> str:
        """The moment in one line, where there is no terminal."""
        alive = sum(bool(worker.partitions) for worker in self.workers)
        return (
            f"{self.elapsed_s:6.1f} s  {self.ticks} ticks  {_rate(self.rate)} ticks/s  "
            f"latency ms p50 {_ms(self.latency_ms['p50'])} p99 {_ms(self.latency_ms['p99'])}  "
            f"backlog {self.backlog}  workers {alive}"
        )

    def draw(self) -> Group:
        """The moment as a terminal shows it."""
        parts = [_headline(self), _workers(self.workers)]
        if self.series:
            parts.append(_assets(self.series))
        return Group(*parts, Text(self.note, style="dim"))


def _headline(picture: Picture) -> Panel:
    latency = picture.latency_ms
    cells = {
        "assets": f"{picture.assets:,}",
        "ticks": f"{picture.ticks:,}",
        "ticks/s": _rate(picture.rate),
        "p50 ms": _ms(latency["p50"]),
        "p95 ms": _ms(latency["p95"]),
        "p99 ms": _ms(latency["p99"]),
        "backlog": f"{picture.backlog:,}",
        "oldest s": f"{picture.oldest_s:.1f}",
    }
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in cells:
        table.add_column(justify="center")
    table.add_row(*(Text(name, style="dim") for name in cells))
    table.add_row(*(Text(value, style="bold") for value in cells.values()))
    return Panel(table, title=picture.title, subtitle=f"{picture.elapsed_s:.0f} s", border_style="cyan")


def _workers(workers: list[WorkerView]) -> Table:
    table = Table(expand=True, box=None, header_style="dim", padding=(0, 1))
    table.add_column("worker")
    for name in ("held", "ticks/s", "backlog", "batch", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("partitions", ratio=1, overflow="ellipsis", no_wrap=True)
    for worker in workers:
        held = " ".join(map(str, worker.partitions)) or ("silent" if worker.gone else "none yet")
        batch, p99 = worker.strides.batch_ticks, worker.strides.latency_ms["p99"]
        numbers = (_rate(worker.rate), f"{worker.backlog:,}", "-" if batch is None else f"{batch:.3g}", _ms(p99))
        name, style = Text(printable(worker.name)), "yellow" if worker.gone else ""
        table.add_row(name, str(len(worker.partitions)), *numbers, held, style=style)
    return table


def _assets(series: list[Series]) -> Table:
    table = Table(expand=True, box=None, header_style="dim", padding=(0, 1), collapse_padding=True)
    table.add_column("asset", no_wrap=True, min_width=13)
    for name in ("last", "predicted", "band, 95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("in it", justify="right", no_wrap=True, min_width=5)
    table.add_column("recent", no_wrap=True, min_width=HISTORY)
    for one in series:
        last = f"{one.values[-1]:.6g}" if one.values else "-"
        share = f"{100 * one.covered / one.judged:.0f} %" if one.judged else "-"
        band = f"{one.lower:.5g} … {one.upper:.5g}"
        table.add_row(Text(one.asset), last, f"{one.prediction:.6g}", band, share, _spark(list(one.values)))
    return table


def _spark(values: list[float]) -> str:
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = (high - low) or 1.0
    return "".join(SPARK[int((value - low) / span * (len(SPARK) - 1))] for value in values)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


def _ms(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:.1f}"
