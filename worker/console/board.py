"""The one fold of the fleet that all viewers share: looks while somebody looks, and reads nothing when nobody does.

    Redis <-- probes, registry, INFO: once a second --+
          <-- one asset's log, twice a second --------+--> Board --> viewers: what is newest, never a queue
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from state_store import Meta, RedisStateStore, StateStoreError, Timeouts
from state_store.glances import Glances
from state_store.logs import Looking
from worker.console.asset import Form
from worker.console.fleet import Fleet, Past
from worker.console.follow import Follower
from worker.errors import BadInput
from worker.reach import open_store
from worker.settings import Settings
from worker.watch import Watch

STEP_S = 0.5
LOOK_EVERY_S = 1.0
SIZES_EVERY_S = 5.0
PROBES_PER_S = 256  # a fleet of more partitions is looked at less often
SIZES_PER_S = 100  # and its assets are counted less often
RETRY_S = 1.0
VIEWERS_MAX = 64
ASSETS_MAX = 32  # followed at once
TIMEOUTS = Timeouts(connect_s=2.0, reply_s=4.0)


@dataclass
class _Tour:
    """What one connection to one fleet remembers between two looks."""

    store: RedisStateStore
    glances: Glances
    meta: Meta
    watch: Watch
    form: Form
    sizes: tuple[int, int] = (0, 0)
    look_due_s: float = 0.0
    sizes_due_s: float = 0.0


class Board:
    """What is known now. `news` is set, and replaced, whenever that changes."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self.news = asyncio.Event()
        self.fleet: Fleet | None = None
        self.past = Past()
        self.waiting = "looking for the fleet"  # for what; empty while the fleet is there
        self.followers: dict[str, Follower] = {}
        self.form = Form({})
        self._settings, self._now = settings, now
        self._assets: Counter[str] = Counter()
        self._viewers = 0
        self._watched = asyncio.Event()

    @contextlib.contextmanager
    def looked_at(self, asset: str) -> Iterator[None]:
        """While the block runs somebody looks, at the fleet and perhaps at an asset."""
        if self._viewers >= VIEWERS_MAX:
            raise BadInput(f"{VIEWERS_MAX} viewers look already: close a page")
        if asset and asset not in self._assets and len(self._assets) >= ASSETS_MAX:
            raise BadInput(f"{ASSETS_MAX} assets are looked at already: close a page")
        self._viewers += 1
        self._assets.update([asset] if asset else [])
        self._watched.set()
        try:
            yield
        finally:
            self._viewers -= 1
            self._assets.subtract([asset] if asset else [])
            self._assets += Counter()  # without those that nobody looks at

    async def run(self) -> None:
        """Looks as long as it is not cancelled; a server that goes away is waited for."""
        while True:
            if not self._viewers:
                self._watched.clear()
                await self._watched.wait()
            try:
                await self._look_on()
            except StateStoreError as error:
                self.waiting, self.followers = str(error), {}
                self._tell()
                await asyncio.sleep(RETRY_S)

    async def _look_on(self) -> None:
        """Until nobody looks any more, or the fleet is another one."""
        place = self._settings.redis
        async with open_store(self._settings) as store, Looking(place.url, TIMEOUTS) as looking:
            meta = await store.read_meta()
            glances = Glances(looking, place.namespace, meta.partitions, meta.generation)
            watch = Watch(store, meta.partitions)
            tour = _Tour(store, glances, meta, watch, Form(meta.fields))
            self.form, self.followers = tour.form, {}
            while self._viewers:
                if not await self._step(tour):
                    return
                await asyncio.sleep(STEP_S)

    async def _step(self, tour: _Tour) -> bool:
        """One round of what is due; False if the fleet was made anew."""
        now, told = self._now(), False
        if now >= tour.sizes_due_s:
            if await tour.store.read_meta() != tour.meta:
                return False
            tour.sizes_due_s = now + max(SIZES_EVERY_S, tour.meta.partitions / SIZES_PER_S)
            tour.sizes = await tour.glances.sizes()
        if now >= tour.look_due_s:
            first = tour.look_due_s == 0.0
            tour.look_due_s = now + max(STEP_S if first else LOOK_EVERY_S, tour.meta.partitions / PROBES_PER_S)
            await self._look(tour)
            told = True
        if await self._follow(tour) or told:
            self._tell()
        return True

    async def _look(self, tour: _Tour) -> None:
        views = tour.watch.views(await tour.glances.probes())
        workers, server = await tour.watch.workers(views), await tour.glances.server()
        assets, rejected = tour.sizes
        self.fleet = Fleet(int(time.time() * 1000), views, workers, assets, rejected, server)
        self.past.note(self.fleet)
        self.waiting = ""

    async def _follow(self, tour: _Tour) -> bool:
        self.followers = {
            asset: self.followers.get(asset) or Follower(tour.glances, tour.form, asset) for asset in self._assets
        }
        return any([await follower.advance() for follower in list(self.followers.values())])

    def _tell(self) -> None:
        """Wakes all viewers; each takes what it has not seen."""
        news, self.news = self.news, asyncio.Event()
        news.set()
