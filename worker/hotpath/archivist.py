"""Brings the audit to disk while this worker leads; only what is there leaves Redis.

Old files go only after the event that tells of it is on disk itself.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import READ_MAX, HotpathStore
from worker.hotpath.archive import Archive
from worker.hotpath.retention import remove, surplus
from worker.settings import HotpathSettings

log = logging.getLogger(__name__)


class Archivist:
    """One term's archive; a disk that is full or away only delays it."""

    def __init__(self, store: HotpathStore, settings: HotpathSettings, fleet: str, leadership: Leadership) -> None:
        self._store, self._settings, self._fleet, self._leadership = store, settings, fleet, leadership
        self._archive: Archive | None = None
        self._caught_up = False
        self._looked_at: Path | None = None  # the newest file when there was no surplus
        self._newest: Path | None = None
        self.told: dict[str, Any] | None = None  # in the audit, of what goes once that is on disk
        self._trouble = ""

    async def work(self) -> bool:
        """Archives what waits; False if another leader does so now."""
        try:
            done = await self._written()
        except OSError as error:
            self._archive = None  # its last line may be torn
            if str(error) != self._trouble:  # once for each kind of trouble
                log.error("hotpath_audit_not_archived", extra={"why": str(error)})
            self._trouble = str(error)
            return True
        self._trouble = ""
        if self.told is not None and self._caught_up:
            await self._remove(self.told)
        return await self._store.archived(self._leadership, done.last_id, done.head.hex(), done.count)

    async def surplus(self) -> dict[str, Any] | None:
        """The old files that are to go, looked for at each new file; whoever asks has the audit tell of them."""
        if self._archive is None or self.told is not None or self._archive.path == self._looked_at:
            return None
        own = self._settings
        bytes_max = (own.archive_segments - 1) * own.archive_segment_bytes  # the newest has room to grow
        found = await asyncio.to_thread(surplus, own.directory, bytes_max)
        self._looked_at = self._looked_at if found else self._archive.path
        return found

    def turned(self) -> bool:
        """Says once of each file that went on from a full one that it has begun."""
        path = None if self._archive is None else self._archive.path
        before, self._newest = self._newest, path
        return None not in (before, path) and before != path

    async def _remove(self, told: dict[str, Any]) -> None:
        """What cannot be removed stays until the next full file."""
        self.told = None
        try:
            await asyncio.to_thread(remove, self._settings.directory, told)
        except OSError as error:
            log.error("hotpath_audit_not_removed", extra={"why": str(error)})
            self._looked_at = None if self._archive is None else self._archive.path

    async def _written(self) -> Archive:
        if self._archive is None:
            loaded = await self._store.load()
            own = self._settings
            self._archive = await asyncio.to_thread(
                Archive, own.directory, self._fleet, self._leadership.token, loaded, own.archive_segment_bytes
            )
        entries = await self._store.unarchived(self._archive.last_id)
        self._caught_up = len(entries) < READ_MAX
        if entries:
            await asyncio.to_thread(self._archive.write, entries)
        return self._archive
