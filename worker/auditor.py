"""Fills an audit from Redis: reads each partition's ticks, predictions and dead letters on from where it stopped."""

import asyncio

from state_store import START
from state_store.logs import Entry, Logs
from worker.audit import Audit
from worker.readback import asset_of

LOGS = ("ticks", "predictions", "rejected")


class Auditor:
    """Read often, it also follows a fleet whose logs are cut behind it."""

    def __init__(self, logs: Logs, partitions: int) -> None:
        self.audit = Audit()
        self._turn = asyncio.Lock()
        self._logs, self._partitions = logs, partitions
        self._read_to = {(partition, log): START for partition in range(partitions) for log in LOGS}

    async def advance(self) -> Audit:
        """Reads all that is new; one reading at a time, or entries would count twice."""
        async with self._turn:
            for partition, log in self._read_to:
                await self._read(partition, log)
        return self.audit

    async def _read(self, partition: int, log: str) -> None:
        async for page in self._logs.pages(partition, log, self._read_to[partition, log]):
            for entry in page:
                self._note(partition, log, entry)
            self._read_to[partition, log] = page[-1][0]

    def _note(self, partition: int, log: str, entry: Entry) -> None:
        entry_id, fields = entry
        tick_id, asset = entry_id.decode(), asset_of(fields)
        if log == "ticks":
            self.audit.tick(partition, tick_id, asset)
        elif log == "predictions":
            self.audit.prediction(partition, tick_id, asset, int(fields[b"t"]))
        else:
            self.audit.dead_letter(partition, tick_id, asset)
