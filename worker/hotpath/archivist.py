"""Brings the audit to disk while this worker leads; only what is there leaves Redis."""

import asyncio
import logging
from pathlib import Path

from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import HotpathStore
from worker.hotpath.archive import Archive

log = logging.getLogger(__name__)


class Archivist:
    """One term's archive; a disk that is full or away only delays it."""

    def __init__(self, store: HotpathStore, directory: Path, fleet: str, leadership: Leadership) -> None:
        self._store, self._directory, self._fleet, self._leadership = store, directory, fleet, leadership
        self._archive: Archive | None = None
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
        return await self._store.archived(self._leadership, done.last_id, done.head.hex(), done.count)

    async def _written(self) -> Archive:
        if self._archive is None:
            loaded = await self._store.load()
            self._archive = Archive(self._directory, self._fleet, self._leadership.token, loaded)
        entries = await self._store.unarchived(self._archive.last_id)
        if entries:
            await asyncio.to_thread(self._archive.write, entries)
        return self._archive
