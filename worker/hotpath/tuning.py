"""The tuner inside a worker: measure, follow, and lead if nobody else does; never in the way of the ticks.

    every poll   look for a document --> follow it --> send the digests of cut windows --> lead, if the lease is free
    at news      look at once: for a document here, for numbers of the predictor in the worker's own loop

Whatever fails here, predictions go on: without Redis a probe ends by itself, and the centre stays.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path

from state_store import StateStoreError
from state_store.hotpath.news import NUMBERS
from state_store.hotpath.store import HotpathStore
from worker.hotpath.follower import Follower
from worker.hotpath.knobs import Knobs, natives_of
from worker.hotpath.leader import Leader
from worker.hotpath.losses import Losses
from worker.hotpath.measures import Measures
from worker.hotpath.metrics import HotpathMetrics
from worker.hotpath.model_knobs import model_of
from worker.pipeline import Pipeline
from worker.settings import Settings

JITTER = 0.2
NEWS_WAIT_MS = 2000
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
        on_numbers: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.settings, self.pipeline, self.metrics, self.clock = settings.hotpath, pipeline, metrics, clock
        self.name, fleet = settings.worker.name, settings.redis.namespace
        self.store = HotpathStore(settings.redis.url, fleet, audit_max=self.settings.audit_max)
        config, table = settings.config(), pipeline.device.table
        losses = Losses(table, config.quantile_levels, self.settings.canary_settle_s)
        self.measures = Measures(
            table, pipeline.knobs, self.settings.digest_s, self.settings.settle_s, clock, losses=losses
        )
        pipeline.measures = self.measures
        self.follower = Follower(fleet, pipeline.knobs, self._swap, document_file(settings))
        natives, model = natives_of(settings.worker), model_of(config)
        self.leader = Leader(
            self.store, pipeline.store, self.settings, fleet, self.name, natives, model, clock, metrics
        )
        self.on_numbers = on_numbers  # takes new numbers at once; the worker's own beat finds them too
        self._led_s = clock()
        self._news = asyncio.Event()
        self._leads = leads
        self._failing = ""
        self._refused: dict[str, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`; then lets another lead at once."""
        turn = random.Random(self.name)  # so that workers do not all ask at the same moment
        self.follower.remember(self.clock())
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._news.clear()
                await self.beat()
                news = asyncio.create_task(self._news.wait())
                pause_s = self.settings.poll_s * turn.uniform(1 - JITTER, 1 + JITTER)
                await asyncio.wait({news, stopping}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            for task in (listening, stopping):
                task.cancel()
            await asyncio.gather(listening, stopping, return_exceptions=True)
        await self._leave()

    async def _listen(self) -> None:
        """Hears of news at once; whatever goes wrong here only means that the next poll finds them."""
        while True:
            try:
                kinds = await self.store.news.hear(NEWS_WAIT_MS)
                if kinds - {NUMBERS}:
                    self._news.set()
                if NUMBERS in kinds and self.on_numbers is not None:
                    await self.on_numbers()
            except StateStoreError as error:
                log.debug("hotpath_no_news", extra={"why": str(error)})
                await asyncio.sleep(self.settings.poll_s)

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
        self._check_canary()
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
        led = 0 < found.leader_left_ms <= self.settings.lease_ms  # longer only where the server's clock went back
        follower.hear(now_s, led and found.document is None, frozen, found.configured)
        self._led_s = now_s if led else self._led_s
        if found.document is not None and follower.offer(found.document, now_s):
            await self.store.follow(self.name, self._ack(), *follower.pair)  # says at once that it follows

    def _check_canary(self) -> None:
        """Frozen, or without a leader for long, this worker leaves the canary's numbers; marks tell of it."""
        generations = self.pipeline.generations
        lost = self.clock() - self._led_s > self.settings.canary_ttl_s
        without = self.follower.frozen or lost
        if without != generations.without_canary:
            generations.without_canary = without
            log.info("hotpath_canary_left" if without else "hotpath_canary_followed", extra={"leaderless": lost})

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
