"""Draws docs/architecture.svg, the path of a tick, from the text below: boxes in columns, arrows between them.

    python docs/site/make_architecture.py [--check]
"""

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "architecture.svg"
WIDTH, HEIGHT = 960, 330
TITLE = "The path of a tick"


class Box(NamedTuple):
    """A thing with a name and what is in it."""

    x: int
    y: int
    width: int
    height: int
    name: str
    lines: tuple[str, ...] = ()

    def draw(self) -> str:
        words = [f'<text class="name" x="{self.x + 14}" y="{self.y + 26}">{escape(self.name)}</text>']
        for place, line in enumerate(self.lines):
            words.append(f'<text x="{self.x + 14}" y="{self.y + 50 + 20 * place}">{escape(line)}</text>')
        frame = f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8"/>'
        return "\n".join([frame, *words])


class Arrow(NamedTuple):
    """From one place to another, with what goes along it."""

    x: int
    y: int
    to_x: int
    to_y: int
    words: str

    def draw(self) -> str:
        middle = (self.x + self.to_x) / 2
        line = f'<line x1="{self.x}" y1="{self.y}" x2="{self.to_x}" y2="{self.to_y}" marker-end="url(#head)"/>'
        above = min(self.y, self.to_y) - 8
        return f'{line}\n<text class="along" x="{middle:.0f}" y="{above}">{escape(self.words)}</text>'


KEPT = ("for each partition:", "ticks", "states, cursor", "predictions, latest", "rejected")
DONE = ("take a micro-batch", "load its states", "run one graph", "commit all, or nothing")
BOXES = (
    Box(20, 60, 170, 90, "producers", ("any language,", "one XADD a tick")),
    Box(290, 30, 180, 200, "Redis", KEPT),
    Box(610, 30, 200, 140, "workers", DONE),
    Box(20, 200, 170, 90, "readers", ("follow streams,", "or ask for the latest")),
)
ARROWS = (
    Arrow(190, 95, 286, 95, "ticks"),
    Arrow(470, 95, 606, 95, "XREAD"),
    Arrow(610, 145, 474, 145, "MULTI … EXEC"),
    Arrow(290, 215, 194, 235, "predictions"),
)
NOTE = "Everything of a partition lies in one slot of one server, so states, predictions and cursor move together."
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #333 } .name { font-weight: 700 } .along { text-anchor: middle }
rect { fill: #eef1fb; stroke: #3f51b5 } line { stroke: #3f51b5; stroke-width: 2 } .head { fill: #3f51b5 }
.paper { fill: #fff; stroke: none }
"""


def drawing() -> str:
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8Z"/></marker></defs>'
    )
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{TITLE}">'
    paper = f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>'
    note = f'<text x="216" y="{HEIGHT - 30}">{escape(NOTE)}</text>'
    parts = [opening, f"<style>{STYLE}</style>", head, paper]
    return "\n".join([*parts, *(each.draw() for each in (*BOXES, *ARROWS)), note, "</svg>"]) + "\n"


def main() -> None:
    if "--check" not in sys.argv:
        TARGET.write_text(drawing())
    elif not TARGET.exists() or TARGET.read_text() != drawing():
        sys.exit(f"{TARGET.name} is not current: run python docs/site/make_architecture.py")


if __name__ == "__main__":
    main()
