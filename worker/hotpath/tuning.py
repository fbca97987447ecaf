"""The tuner inside a worker: measure, follow, and lead if nobody else does; never in the way of the ticks.

    every poll   look for a document --> follow it --> send the digests of cut windows --> lead, if the lease is free

Whatever fails here, predictions go on: without Redis a probe ends by itself, and the centre stays.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from state_store import StateStoreError
from state_store.hotpath.store import HotpathStore
from worker.hotpath.follower import Follower
from worker.hotpath.knobs import Knobs, natives_of
from worker.hotpath.leader import Leader
from worker.hotpath.measures import Measures
from worker.hotpath.metrics import HotpathMetrics
from worker.pipeline import Pipeline
from worker.settings import Settings

JITTER = 0.2
LEAVE_S_MAX = 2.0  # a lease that is not given back ends by itself
SWITCH_FILE = "freeze"  # in the tuner's directory: freezes the workers of this machine, with or without Redis

log = logging.getLogger(__name__)


class Tuning:
    """One worker's part in the tuner."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        metrics: HotpathMetrics,
        clock: Callable[[], float] = time.monotonic,
        leads: bool = True,
    ) -> None:
        self.settings, self.pipeline, self.metrics, self.clock = settings.hotpath, pipeline, metrics, clock
        self.name, fleet = settings.worker.name, settings.redis.namespace
        self.store = HotpathStore(settings.redis.url, fleet, audit_max=self.settings.audit_max)
        self.measures = Measures(
            pipeline.device.table, pipeline.knobs, self.settings.digest_s, self.settings.settle_s, clock
        )
        pipeline.measures = self.measures
        self.follower = Follower(fleet, pipeline.knobs, self._swap, document_file(settings))
        self.leader = Leader(
            self.store, self.settings, fleet, self.name, natives_of(settings.worker), clock, metrics
        )
        self._leads = leads
        self._failing = ""
        self._refused: dict[str, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`; then lets another lead at once."""
        turn = random.Random(self.name)  # so that workers do not all ask at the same moment
        self.follower.remember(self.clock())
        while not stop.is_set():
            await self.beat()
            try:
                await asyncio.wait_for(stop.wait(), self.settings.poll_s * turn.uniform(1 - JITTER, 1 + JITTER))
            except TimeoutError:
                pass
        await self._leave()

    async def beat(self) -> None:
        """Does what is due; a store that cannot be reached, or does not let us, only delays it."""
        try:
            self.measures.look(self.clock())
            await self._follow()
            await self._send()
            if self._leads:
                await self.leader.step()
            self._failing = ""
        except StateStoreError as error:
            self._tell_failure(str(error))
        except Exception as error:  # the ticks matter more than their tuning
            self._tell_failure(repr(error), error)
            self.leader.resign("it failed")
        self.follower.check(self.clock())
        self._show()

    async def _follow(self) -> None:
        follower = self.follower
        asked_s = self.clock()
        fence, generation = follower.pair
        found = await self.store.follow(self.name, self._ack(), fence, generation)
        now_s = self.clock()
        self.measures.set_server_clock(found.now_us, asked_s, now_s)
        frozen = found.frozen or (self.settings.directory / SWITCH_FILE).exists()
        # After a failover that lost writes the stored document may be older than ours: then nobody wants our probe.
        follower.hear(now_s, found.leader_left_ms > 0 and found.document is None, frozen, found.configured)
        if found.document is not None and follower.offer(found.document, now_s):
            await self.store.follow(self.name, self._ack(), *follower.pair)  # says at once that it follows

    async def _send(self) -> None:
        digests = self.measures.digests
        while digests:
            await self.store.send_digest(self.name, digests[0].encode())
            digests.popleft()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await self.leader.release()
                await self.store.leave(self.name)
        except (StateStoreError, TimeoutError) as error:
            log.warning("hotpath_not_left", extra={"why": str(error)})
        finally:
            await self.store.close()

    def _swap(self, knobs: Knobs, now_s: float) -> None:
        """The one place where a worker's knobs change."""
        self.pipeline.knobs = knobs
        self.measures.swap(knobs, now_s)
        log.info("hotpath_knobs", extra={"fence": knobs.fence, "generation": knobs.generation})

    def _ack(self) -> str:
        fence, generation = self.follower.knobs.pair
        said = {"fence": fence, "generation": generation, "frozen": self.follower.frozen}
        return json.dumps(said | {"expired": self.follower.expired, "refused": dict(self.follower.refused)})

    def _show(self) -> None:
        metrics, follower = self.metrics, self.follower
        metrics.generation.set(follower.knobs.generation)
        metrics.frozen.set(follower.frozen)
        metrics.lease_held.set(self.leader.leadership is not None)
        metrics.probe_expired.inc(follower.expired - self._refused.get("expired", 0))
        for kind, count in follower.refused.items():
            metrics.refused.add(kind, count - self._refused.get(kind, 0))
        self._refused = dict(follower.refused) | {"expired": follower.expired}

    def _tell_failure(self, why: str, error: Exception | None = None) -> None:
        """Once for each kind of trouble, not at every beat."""
        if why != self._failing:
            log.warning("hotpath_unavailable", extra={"why": why}, exc_info=error)
        self._failing = why


def document_file(settings: Settings) -> Path:
    """Where this machine keeps the last good document of this fleet."""
    place = f"{settings.redis.url}/{settings.redis.namespace}".encode()
    return settings.hotpath.directory / f"document-{blake2b(place, digest_size=6).hexdigest()}.json"
