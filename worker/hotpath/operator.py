"""Gives an order to the tuner and waits for the answer; where nobody leads, it leads for as long as that takes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from state_store.client import UNHURRIED
from state_store.hotpath.store import HotpathStore, Shown
from worker.errors import BadInput, OrderRefused
from worker.hotpath.document import RefusedDocument, decode
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.order import Order
from worker.reach import open_store
from worker.settings import Settings

LOOK_EVERY_S = 0.05
LEADERLESS_SHARE = 0.5  # of a lease: after that the tuner has no leader, and this process stands in
FREEZE = "freeze"


@asynccontextmanager
async def open_tuner(settings: Settings) -> AsyncIterator[HotpathStore]:
    """The tuner's keys of a fleet that exists."""
    async with open_store(settings) as fleet:
        await fleet.read_meta()  # a fleet must be there
    place, audit_max = settings.redis, settings.hotpath.audit_max
    store = HotpathStore(place.url, place.namespace, timeouts=UNHURRIED, audit_max=audit_max)
    try:
        yield store
    finally:
        await store.close()


async def give(settings: Settings, order: Order, wait_s: float, fresh: bool = False) -> dict[str, Any]:
    """The answer to an order; raises OrderRefused with why it was not followed."""
    async with open_tuner(settings) as store:
        if order.name == FREEZE:
            await store.freeze(order.reason if order.args["on"] else "")
        if order.name == "canary-start":
            async with open_store(settings) as fleet:
                order.args["partitions"] = (await fleet.read_meta()).partitions
        if order.name == "rollback" and "to" in order.args:
            order.args["centre"] = await _centre(store, settings, order.args["to"])
        answer = await _answered(settings, store, order, wait_s, fresh)
    if not answer["ok"]:
        raise OrderRefused(answer["told"])
    return answer


async def shown(settings: Settings, newest: int = 0) -> Shown:
    async with open_tuner(settings) as store:
        return await store.show(newest)


async def _answered(
    settings: Settings, store: HotpathStore, order: Order, wait_s: float, fresh: bool
) -> dict[str, Any]:
    if await store.answer(order.id) is None:
        await store.give(order.encode())
    deadline_s = time.monotonic() + wait_s
    led_s = time.monotonic()
    while (answer := await store.answer(order.id)) is None:
        now_s = time.monotonic()
        led_s = now_s if (await store.led()).left_ms else led_s
        if now_s - led_s > LEADERLESS_SHARE * settings.hotpath.lease_ms / 1000 or fresh:
            lead = await asyncio.to_thread(import_module, "worker.hotpath.standin")  # brings JAX, which takes seconds
            await lead.stand_in(settings, store, fresh)
        elif now_s > deadline_s:
            raise OrderRefused(f"no answer within {wait_s:g} s: see predictor hotpath status; the order still stands")
        else:
            await asyncio.sleep(LOOK_EVERY_S)
    return json.loads(answer)


async def _centre(store: HotpathStore, settings: Settings, generation: int) -> dict[str, float]:
    encoded = await store.document(generation)
    if encoded is None:
        raise BadInput(f"generation {generation} is not in the history: see predictor hotpath explain")
    try:
        return dict(decode(encoded, settings.redis.namespace, REGISTRY).centre)
    except RefusedDocument as refused:
        raise BadInput(f"generation {generation} cannot come back: {refused}") from None
