"""Answers that several viewers ask for: made once at a time, kept for a moment, the oldest forgotten."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Up to `most` answers, each for `seconds`."""

    def __init__(self, seconds: float, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._now = seconds, most, now
        self._answers: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The answer that is kept, or a new one; whoever asks meanwhile waits for the same."""
        async with self._turn:
            if (kept := self._answers.get(key)) is not None and self._now() - kept[0] < self._seconds:
                return kept[1]
            answer = await make()
            self._answers[key] = self._now(), answer
            self._answers.move_to_end(key)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
            return answer

    def forget(self) -> None:
        """After something was done that changes the answers."""
        self._answers.clear()
