"""One viewer: remembers what its page has seen, and tells it what is new as server-sent events.

There is no queue. A page that reads slowly is told the newest when it is ready, and what lay between is left out.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from worker.console.asset import Trail
from worker.console.board import Board
from worker.lines import json_line

SLOW_MAX_S = 60.0  # for what is written to be taken; then the connection ends, and the page makes a new one
UNSENT_BYTES_MAX = 65_536  # here, and again in the kernel
PING_S = 15.0  # an empty line when there is nothing to tell, to see whether anybody listens


async def keep_told(board: Board, asset: str, writer: asyncio.StreamWriter) -> None:
    """Writes events until the connection ends."""
    writer.transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES_MAX)
    viewer = Viewer(board, asset)
    while True:
        news = board.news
        writer.write(viewer.fresh() or b":\n\n")
        async with asyncio.timeout(SLOW_MAX_S):
            await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_S):
                await news.wait()


class Viewer:
    """What one page has seen of the board."""

    def __init__(self, board: Board, asset: str) -> None:
        self._board, self._asset = board, asset
        self._seen_ms = self._moved_ms = 0
        self._waiting: str | None = None
        self._trail: Trail | None = None
        self._count = 0
        self._fault: str | None = None

    def fresh(self) -> bytes:
        """All that is new to it, encoded."""
        return b"".join([*self._of_fleet(), *self._of_asset()])

    def _of_fleet(self) -> list[bytes]:
        board, events = self._board, []
        if board.waiting != self._waiting:
            self._waiting = board.waiting
            events.append(event("waiting", {"why": board.waiting}))
        fleet = board.fleet
        if fleet is None or fleet.at_ms == self._seen_ms:
            return events
        if not self._seen_ms:
            events.append(event("past", {"moments": list(board.past.moments)}))
        moves = [move for move in board.past.moves if move.at_ms > self._moved_ms]
        self._seen_ms = self._moved_ms = fleet.at_ms
        return [*events, event("fleet", fleet.told() | {"moves": moves})]

    def _of_asset(self) -> list[bytes]:
        follower = self._board.followers.get(self._asset)
        if follower is None:
            return []
        trail = follower.trail
        anew = trail is not self._trail
        if not anew and trail.count == self._count and follower.fault == self._fault:
            return []
        points = trail.since(0 if anew else self._count)
        self._trail, self._count, self._fault = trail, trail.count, follower.fault
        told = {
            "asset": self._asset,
            "anew": anew,
            "known": follower.known,
            "fault": follower.fault,
            "skims": follower.skims,
            "partition": follower.partition,
            "levels": self._board.form.levels,
            "judged": trail.judged,
            "covered": trail.covered,
            "points": points,
        }
        return [event("asset", told)]


def event(name: str, value: Mapping[str, Any]) -> bytes:
    """One server-sent event; JSON has no line of its own inside."""
    return f"event: {name}\ndata: {json_line(value)}\n\n".encode()
