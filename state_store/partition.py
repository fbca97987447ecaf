"""One partition's two connections: one reads ahead, the other commits, renews and loads, one thing at a time.

A renewal on any other connection would break the WATCH that guards the next commit. What was read is only sure to be in
the log as long as the connections of `hold` last: behind a new one may be a server that lost the end of its log.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from state_store.commit import build, executed, server_ms, settle, watch_words
from state_store.contract import Commit, Control, Held, Lease, Outcome, Retention, Ticks
from state_store.errors import SlotMoved, StateStoreError, StoreUnavailable
from state_store.frames import ticks_an_entry
from state_store.keys import PartitionKeys
from state_store.lease import decode_control, decode_lease, lease_words, sealed
from state_store.refusals import refusal
from state_store.room import room_words
from state_store.route import Route
from state_store.ticks import AssetCheck, parse
from state_store.wire import Connection, ServerError, encode

LOADED_MAX = 512  # Records asked for at once.
ENTRIES_MAX = 4096  # Read at once: should all be frames, they are some dozens of megabytes.
TOUCHES_MAX = 32  # Foreign touches of `control` during one commit.
T = TypeVar("T")


class Partition:
    """What a worker does in a partition that it holds."""

    def __init__(self, partition: int, keys: PartitionKeys, route: Route, retention: Retention):
        self.partition = partition
        self.keys = keys
        self.control = Control()
        self._route = route
        self._timeouts = route.timeouts
        self._retention = retention
        self._reading: Connection | None = None
        self._writing: Connection | None = None
        self._where = ""
        self._held_by: Connection | None = None  # The committing connection since `hold`.
        self._turn = asyncio.Lock()
        self._now_ms = 0  # The latest that the server's clock was seen at.
        self._framing = 1.0  # How many ticks an entry of the last read had.

    def close(self) -> None:
        """Ends both connections."""
        for wire in (self._reading, self._writing):
            if wire is not None:
                wire.abort()
        self._reading = self._writing = self._held_by = None

    async def hold(self) -> Control:
        """Opens the committing connection and sets its watch."""
        async with self._turn:
            self._held_by = await self._writer()
            return self.control

    async def read(self, after: bytes, count: int, block_ms: int, check: AssetCheck) -> Ticks:
        """Reads ticks after an id; a lost connection is not replaced before the next `hold`."""
        if self._reading is None:
            self._reading = await self._connect()
        block = ("BLOCK", str(block_ms)) if block_ms else ()
        entries_max = min(math.ceil(count / self._framing), ENTRIES_MAX)  # Frames that are too many come once more.
        request = encode("XREAD", "COUNT", str(entries_max), *block, "STREAMS", self.keys.ticks, after)
        try:
            reply = (await self._reading.ask(request, 1, self._timeouts.reply_s + block_ms / 1000))[0]
        except asyncio.CancelledError:
            self._reading = None  # it waits for a reply that nobody wants
            raise
        except StoreUnavailable as error:
            self._route.heed(error)
            raise
        self._raise_error(reply)
        entries = reply[0][1] if reply else []
        self._framing = ticks_an_entry(entries)
        return parse(entries, check, after, count)

    async def load(self, assets: list[bytes]) -> list[bytes | None]:
        """Loads state records, in several round trips when there are many."""
        async with self._turn:
            records: list[bytes | None] = []
            for start in range(0, len(assets), LOADED_MAX):
                request = encode("HMGET", self.keys.states, *assets[start : start + LOADED_MAX])
                records += await self._persist(lambda request=request: self._load(request))
            return records

    async def predictions(self, after: bytes, until: bytes) -> dict[bytes, bytes]:
        """Loads payloads page by page."""
        made: dict[bytes, bytes] = {}
        async with self._turn:
            while True:
                request = encode("XRANGE", self.keys.predictions, b"(" + after, until, "COUNT", str(LOADED_MAX))
                page = await self._persist(lambda request=request: self._load(request))
                made |= {entry_id: fields[fields.index(b"p", 4) + 1] for entry_id, fields in page}
                if len(page) < LOADED_MAX:
                    return made
                after = page[-1][0]

    async def _load(self, request: bytes) -> list[Any]:
        reply = (await (await self._writer()).ask(request, 1, self._timeouts.reply_s))[0]
        self._raise_error(reply)
        return reply

    async def renew(self, lease: Lease) -> Lease | Held:
        """Extends the lease and renews the watch that this broke."""
        return await self._lease("renew", lease)

    async def release(self, lease: Lease) -> None:
        """Gives the lease back, if it is still this one."""
        await self._lease("release", lease)

    async def _lease(self, op: str, lease: Lease) -> Lease | Held:
        words = lease_words(op, self.keys, "", lease.nonce, lease.epoch, lease.ttl_ms)
        request = encode(*words) + encode("UNWATCH") + watch_words(self.keys.control)
        async with self._turn:
            wire = await self._writer()
            reply, _, _, fields = await wire.ask(request, 4, self._timeouts.reply_s)
            self._raise_error(reply)
            self._note(fields)
        answer, _, now_ms = decode_lease(self.partition, reply, lease.ttl_ms, self.keys.control)
        self._now_ms = max(self._now_ms, now_ms)
        return answer

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        """Sends a commit over the connection of `hold`, and asks until it is known what became of it."""
        async with self._turn:
            return await self._persist(lambda: self._commit(lease, commit))

    async def _commit(self, lease: Lease, commit: Commit) -> Outcome:
        wire = await self._writer()
        fresh = False  # Whether `control` was read just now; it may be old when something else than commits came last.
        for _ in range(TOUCHES_MAX):
            outcome = settle(self.control, lease, commit)
            if not fresh and (outcome is not None or self.control.seal):
                await self._look(wire)
            elif self.control.seal:
                raise sealed(self.partition, self.control.seal, self.keys.control)
            elif outcome is not None:
                return outcome
            elif wire is not self._held_by:
                return Outcome.CONFLICT  # The cursor fits, but its ticks may be gone, or be others of the same ids.
            elif await self._execute(wire, lease, commit):
                return Outcome.OK
            fresh = True
        raise StoreUnavailable(f"Partition {self.partition} is contended: somebody keeps writing to its control key.")

    async def make_room(self) -> int:
        """Cuts what lies behind the cursor shorter than its retention; gives how many entries went."""
        request = encode(*room_words(self.keys, self._retention)) + encode("UNWATCH") + watch_words(self.keys.control)
        async with self._turn:
            wire = await self._writer()
            gone, _, _, fields = await wire.ask(request, 4, self._timeouts.reply_s)
            self._raise_error(gone)
            self._note(fields)
        return gone

    async def _look(self, wire: Connection) -> None:
        """Reads `control` again, under a new watch."""
        request = encode("UNWATCH") + watch_words(self.keys.control)
        self._note((await wire.ask(request, 3, self._timeouts.reply_s))[-1])

    async def _execute(self, wire: Connection, lease: Lease, commit: Commit) -> bool:
        """Sends the transaction; False when a foreign touch of `control` voided it."""
        request = build(commit, self.control, self.keys, self._retention, self._now_ms + lease.ttl_ms)
        replies = await wire.ask(request.data, request.replies, self._timeouts.reply_s)
        multi, result, fields = replies[0], replies[-3], replies[-1]
        if isinstance(result, ServerError) and multi == b"OK":
            self._raise_error(next(reply for reply in replies if isinstance(reply, ServerError)))
        self._note(fields)
        if result is None:
            return False
        fault = executed(result, request) if multi == b"OK" else f"the server refused MULTI: {multi}"
        if fault is not None:
            await self._seal(wire, fault)
        self._now_ms = max(self._now_ms, server_ms(result))
        return True

    async def _seal(self, wire: Connection, why: str) -> None:
        await wire.ask(encode("HSET", self.keys.control, "seal", why), 1, self._timeouts.reply_s)
        self.close()
        raise sealed(self.partition, why, self.keys.control)

    async def _writer(self) -> Connection:
        """Gives the committing connection; a new one is watching, and `control` is what the server holds."""
        if self._writing is None or self._writing.broken:
            self._writing = None
            wire = await self._connect()
            # A server that refuses MULTI would execute a commit's commands one by one.
            # Nothing stands inside: a full server refuses that.
            opening = encode("MULTI") + encode("EXEC") + encode("TIME") + watch_words(self.keys.control)
            replies = await wire.ask(opening, 5, self._timeouts.reply_s)
            try:
                for reply in replies:
                    self._raise_error(reply)
            except StateStoreError:
                wire.abort()
                raise
            self._now_ms = max(self._now_ms, server_ms([replies[2]]))
            self._note(replies[4])
            self._writing = wire
        return self._writing

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tries again over new connections for a while; only for what can tell whether it has happened."""
        try:
            return await attempt()
        except StoreUnavailable as error:
            self._route.heed(error)
        async for trial in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(self._timeouts.resolve_s),
            wait=wait_exponential_jitter(multiplier=0.02, max=1.0, jitter=0.05),
            reraise=True,
        ):
            with trial:
                self._drop_writer()
                try:
                    return await attempt()
                except StoreUnavailable as error:
                    self._route.heed(error)
                    raise
        raise AssertionError("unreachable")

    async def _connect(self) -> Connection:
        wire = await self._route.connect(self.keys.control)
        self._where = wire.where
        return wire

    def _drop_writer(self) -> None:
        if self._writing is not None:
            self._writing.abort()
        self._writing = None

    def _note(self, fields: Any) -> None:
        self._raise_error(fields)
        self.control = decode_control(fields)

    def _raise_error(self, reply: Any) -> None:
        if isinstance(reply, ServerError):
            error = refusal(str(reply), self._where)
            if isinstance(error, SlotMoved):  # What this connection holds and watches is no longer there.
                self._route.heed(error)
                self._drop_writer()
            raise error
