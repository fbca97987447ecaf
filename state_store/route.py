"""Where a key is: one server, or the node of a Redis Cluster that has its slot; found out, and found out again.

One route is shared by all connections of a client. It is asked only when a connection is opened, so a server that is
alone costs one question in a client's life. A redirection corrects the one slot that it names; after a lost connection
the whole map is read anew, from whichever node answers first.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from state_store.client import Address, Timeouts
from state_store.errors import SlotMoved, StateStoreError, StoreUnavailable
from state_store.refusals import refusal
from state_store.slots import SLOTS, Node, SlotMap, known_host, read_slots, slot_of
from state_store.wire import Connection, ServerError, encode

REFRESH_S = 0.1  # The map is not read more often than this.
ASKED_MAX = 8  # Nodes asked for it at once.
REDIRECTIONS_MAX = 6
_PAUSE_S = 0.02  # Before the first repetition, then twice as long each time.
T = TypeVar("T")


class Route:
    """Leads to the node of a key."""

    def __init__(self, seed: Address, timeouts: Timeouts):
        self.seed = seed
        self.timeouts = timeouts
        self._nodes: SlotMap | None = None  # By slot; None when the server is alone.
        self._doubted = True
        self._redirected = False  # Something that called itself alone is not.
        self._read_at = -math.inf
        self._addresses: dict[Node, Address] = {}
        self._turn = asyncio.Lock()

    async def find(self, key: bytes | None) -> Address:
        """Gives the node of a key; without a key the server of the URL."""
        if self._doubted:
            await self._read()
        if self._nodes is None or key is None:
            return self.seed
        slot = slot_of(key)
        node = self._nodes[slot]
        if node is None:
            self._doubted = True
            raise StoreUnavailable(f"The cluster of {self.seed} has no node for slot {slot}: see CLUSTER NODES there.")
        return self._address(node)

    def guess(self, key: bytes) -> Address:
        """Gives the node that had a key when the map was read; any node tells those who come to it in error."""
        node = self._nodes[slot_of(key)] if self._nodes is not None else None
        return self.seed if node is None else self._address(node)

    async def connect(self, key: bytes) -> Connection:
        """Opens a connection to the node of a key."""
        try:
            return await (await self.find(key)).connect(self.timeouts)
        except StoreUnavailable as error:
            self.heed(error)
            raise

    async def is_cluster(self) -> bool:
        """Tells whether several servers share the keys."""
        await self.find(None)
        return self._nodes is not None

    async def primaries(self) -> dict[Address, int]:
        """Gives the nodes that have slots, and how many."""
        await self.find(None)
        if self._nodes is None:
            return {self.seed: SLOTS}
        counts = Counter(node for node in self._nodes if node is not None)
        return {self._address(node): count for node, count in sorted(counts.items())}

    def heed(self, error: StateStoreError) -> None:
        """Learns from what went wrong on the way to a node."""
        if isinstance(error, SlotMoved):
            if self._nodes is None:
                self._doubted = self._redirected = True
            elif error.node is not None and not error.asking:
                self._nodes[error.slot] = error.node
        elif isinstance(error, StoreUnavailable) and self._nodes is not None:
            self._doubted = True

    async def follow(self, key: bytes | None, attempt: Callable[[Address, bool], Awaitable[T]]) -> T:
        """Tries at the node of a key, and again where a redirection points: before one nothing was executed.

        The attempt is told whether it has to say ASKING first.
        """
        detour: Address | None = None
        for number in range(REDIRECTIONS_MAX):
            address = detour or await self.find(key)
            try:
                return await attempt(address, detour is not None)
            except SlotMoved as error:
                self.heed(error)
                detour = self._address(error.node) if error.asking and error.node else None
                if number == REDIRECTIONS_MAX - 1:
                    raise
                if number:
                    await asyncio.sleep(_PAUSE_S * 2**number)
            except StoreUnavailable as error:
                self.heed(error)
                raise
        raise AssertionError("unreachable")

    async def _read(self) -> None:
        """Reads the map; whoever waits meanwhile takes it too."""
        async with self._turn:
            if not self._doubted or time.monotonic() - self._read_at < REFRESH_S:
                return
            self._nodes = await self._ask_around()
            self._doubted, self._read_at = False, time.monotonic()

    async def _ask_around(self) -> SlotMap | None:
        """Asks several nodes at once: the first that is in touch with the others is believed, else any."""
        known = {self._address(node) for node in self._nodes or () if node is not None}
        asked = [self.seed, *sorted(known - {self.seed}, key=str)][:ASKED_MAX]
        asking = [asyncio.create_task(self._ask(address)) for address in asked]
        doubtful: list[SlotMap | None] = []
        errors: list[StateStoreError] = []
        try:
            for answering in asyncio.as_completed(asking):
                try:
                    nodes, in_touch = await answering
                except StateStoreError as error:
                    errors.append(error)
                    continue
                if in_touch:
                    return nodes
                doubtful.append(nodes)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if doubtful:
            return doubtful[0]
        raise min(errors, key=lambda error: isinstance(error, StoreUnavailable))  # A refusal tells more.

    async def _ask(self, address: Address) -> tuple[SlotMap | None, bool]:
        """Gives a node's map, and whether it finds its cluster whole; no map from a server that is alone."""
        wire = await address.connect(self.timeouts)
        try:
            (hello,) = await wire.ask(encode("HELLO"), 1, self.timeouts.connect_s)
            if isinstance(hello, ServerError):
                if self._redirected:
                    raise refusal(str(hello), str(address))
                return None, True  # Whoever may not ask meets either all keys here or a redirection.
            if dict(zip(hello[0::2], hello[1::2], strict=True))[b"mode"] != b"cluster":
                return None, True
            request = encode("CLUSTER", "SLOTS") + encode("CLUSTER", "INFO")
            slots, info = await wire.ask(request, 2, self.timeouts.connect_s)
        finally:
            wire.abort()
        for reply in (slots, info):
            if isinstance(reply, ServerError):
                raise refusal(str(reply), str(address))
        return read_slots(slots, address.host), b"cluster_state:ok" in info

    def _address(self, node: Node) -> Address:
        if node not in self._addresses:
            host = known_host(node[0], self.seed.host)
            self._addresses[node] = self.seed.at(host, node[1])
        return self._addresses[node]
