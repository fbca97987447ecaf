"""Where a live view goes: a terminal that is drawn over, or lines on standard error."""

import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from worker.picture import Picture

LINE_EVERY_S = 1.0


class Screen(Protocol):
    def phase(self, text: str) -> None:
        """Says what is being waited for."""
        ...

    def say(self, text: str) -> None:
        """Says what is to stay."""
        ...

    def show(self, picture: Picture) -> None: ...

    def close(self) -> None: ...


def open_screen(as_json: bool) -> Screen:
    """The terminal if there is one and the output is for a person."""
    return Terminal() if not as_json and sys.stdout.isatty() else Lines()


class Terminal:
    """Draws in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), refresh_per_second=8, transient=False)
        self._live.start()
        self._last: Picture | None = None

    def phase(self, text: str) -> None:
        self._live.update(Waiting(text))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, picture: Picture) -> None:
        self._last = picture
        self._live.update(picture.draw())

    def close(self) -> None:
        if self._last is not None:  # it stays on the screen, without the advice
            self._live.update(replace(self._last, note="").draw())
        self._live.stop()


class Waiting:
    """What is being waited for, and for how long."""

    def __init__(self, text: str) -> None:
        self._text, self._since, self._spinner = text, time.monotonic(), Spinner("dots")

    def __rich__(self) -> Spinner:
        self._spinner.update(text=f"{self._text}  {time.monotonic() - self._since:.0f} s")
        return self._spinner


class Lines:
    """One line a second."""

    def __init__(self) -> None:
        self._last_phase = ""
        self._shown = 0.0

    def phase(self, text: str) -> None:
        if text != self._last_phase:
            _say(text)
        self._last_phase = text

    def say(self, text: str) -> None:
        _say(text)

    def show(self, picture: Picture) -> None:
        if time.monotonic() - self._shown >= LINE_EVERY_S:
            self._shown = time.monotonic()
            _say(picture.line())

    def close(self) -> None:
        pass


def _say(text: str) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more: no reason to end what is being watched
        print(text, file=sys.stderr, flush=True)
