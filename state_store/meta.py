"""What a fleet was made with and where it is now, and the refusal when somebody comes with other values."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from state_store.client import Address
from state_store.contract import SCHEMA, Meta
from state_store.errors import FleetMismatch, FleetMissing, WrongServer
from state_store.keys import Keys
from state_store.refusals import refusal
from state_store.route import Route
from state_store.wire import ServerError, encode

OPENED = 1  # What earlier versions noted instead of a number.


def encode_meta(meta: Meta) -> dict[str, str]:
    """Writes the fields of the `meta` hash; what was never changed is left out."""
    made = {
        "schema": str(meta.schema),
        "partitions": str(meta.partitions),
        "layout": meta.layout.hex(),
        "fields": json.dumps(meta.fields, sort_keys=True),
    }
    if meta.generation:
        past, openings = ",".join(map(str, meta.past)), ",".join(map(str, meta.openings))
        made |= {"generation": str(meta.generation), "oldest": str(meta.generation)}
        made |= {"past": past, "openings": openings}
    return made


def decode_meta(kept: Mapping[bytes, bytes], where: str) -> Meta:
    """Reads the `meta` hash."""
    try:
        generation = int(kept.get(b"generation", 0))
        return Meta(
            partitions=int(kept[b"partitions"]),
            layout=bytes.fromhex(kept[b"layout"].decode()),
            fields=json.loads(kept[b"fields"]),
            schema=int(kept[b"schema"]),
            generation=generation,
            past=_numbers(kept.get(b"past", b"")),
            oldest=int(kept.get(b"oldest", 0)),
            next_partitions=int(kept.get(b"next_partitions", 0)),
            moved_ms=int(kept.get(b"moved_ms", 0)),
            openings=whole_openings(_numbers(kept.get(b"openings", b"")), generation),
            next_opening=int(kept.get(b"next_opening", 0)),
        )
    except (KeyError, ValueError) as error:
        raise WrongServer(f"{where}: its meta cannot be read ({error}): take another namespace.") from error


def whole_openings(openings: Iterable[int], generation: int) -> tuple[int, ...]:
    """With those that an earlier version did not note."""
    noted = tuple(openings)
    return noted + (OPENED,) * (generation - len(noted))


def _numbers(text: bytes) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(b",") if number)


def compare_meta(kept: Meta, wanted: Meta, where: str) -> None:
    """Raises FleetMismatch if a fleet was made with other values than the ones at hand.

    Whoever still asks for the number of partitions that it was made with means the fleet, wherever it is now.
    """
    if kept.schema != SCHEMA:
        raise FleetMismatch(
            f"{where} has schema {kept.schema}, this version knows schema {SCHEMA}: "
            "use the version that made it, or another namespace."
        )
    if wanted.partitions not in (kept.partitions, *kept.past[:1]):
        has = f"has {kept.partitions} partitions now" if kept.past else f"was made with {kept.partitions} partitions"
        raise FleetMismatch(
            f"{where} {has}, {wanted.partitions} were asked for: "
            f"ask for {kept.partitions}, change it with `predictor repartition`, or take another namespace."
        )
    if kept.layout != wanted.layout:
        raise FleetMismatch(
            f"{where} holds states of layout {kept.layout.hex()}, this version and configuration make "
            f"{wanted.layout.hex()}: use the ones that made it, or take another namespace."
        )
    fields = json.loads(json.dumps(wanted.fields))
    other = sorted(name for name in kept.fields.keys() | fields.keys() if kept.fields.get(name) != fields.get(name))
    if other:
        name = other[0]
        raise FleetMismatch(
            f"{where} was made with {name}={kept.fields.get(name)}, this configuration has {name}={fields.get(name)}: "
            "use the same configuration, or take another namespace."
        )


async def look_at_fleet(route: Route, keys: Keys) -> tuple[Meta, Any]:
    """Reads `meta` for those who only send or read, and the clock of its server."""

    async def attempt(address: Address, asking: bool) -> tuple[Meta, Any]:
        wire = await address.connect(route.timeouts)
        try:
            request = (encode("ASKING") if asking else b"") + encode("HGETALL", keys.meta) + encode("TIME")
            *_, kept, now = await wire.ask(request, 2 + asking, route.timeouts.reply_s)
        finally:
            wire.abort()
        if isinstance(kept, ServerError):
            raise refusal(str(kept), str(address))
        fleet = f"The fleet '{keys.namespace}' at {route.seed}"
        if not kept:
            raise FleetMissing(f"{fleet} does not exist yet: make it with `predictor init`.")
        return decode_meta(dict(zip(kept[0::2], kept[1::2], strict=True)), fleet), now

    return await route.follow(keys.meta.encode(), attempt)
