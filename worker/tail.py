"""Follows a fleet's predictions and prints them, the payload's own bytes decoded."""

import asyncio
import time
from collections.abc import Callable, Mapping

from state_store import PredictionReader, StoreUnavailable
from state_store.client import UNHURRIED
from state_store.reader import RawPredictions
from worker.exits import notice
from worker.lines import prediction_line
from worker.settings import Settings

BLOCK_MS = 200
PAUSE_S = 1.0


async def follow(settings: Settings, start: str, until_idle_s: float | None, emit: Callable[[Mapping], None]) -> None:
    """Emits every prediction from `start` on; ends when none came for `until_idle_s`."""
    async with PredictionReader(settings.redis.url, settings.redis.namespace, start, timeouts=UNHURRIED) as reader:
        assert reader.meta is not None
        last = time.monotonic()
        while until_idle_s is None or time.monotonic() - last < until_idle_s:
            for raw in await _patiently(reader):
                _emit_all(raw, reader.meta.fields, emit)
                last = time.monotonic()


def _emit_all(raw: RawPredictions, fields: Mapping, emit: Callable[[Mapping], None]) -> None:
    for tick_id, entry in zip(raw.ids, raw.entries, strict=True):
        emit(prediction_line(entry[b"p"], fields, entry[b"a"].decode(), raw.partition, tick_id.decode()))


async def _patiently(reader: PredictionReader) -> list[RawPredictions]:
    """Waits for a server that was there and went away."""
    try:
        return await reader.read_raw(BLOCK_MS)
    except StoreUnavailable as error:
        notice(f"{error} Waiting for it.")
        while True:
            try:
                return await reader.read_raw(BLOCK_MS)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)
