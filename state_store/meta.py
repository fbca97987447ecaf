"""What a fleet was made with, and the refusal when somebody comes with other values."""

import json
from collections.abc import Mapping

from state_store.contract import SCHEMA, Meta
from state_store.errors import FleetMismatch, WrongServer


def encode_meta(meta: Meta) -> dict[str, str]:
    """Writes the fields of the `meta` hash."""
    return {
        "schema": str(meta.schema),
        "partitions": str(meta.partitions),
        "layout": meta.layout.hex(),
        "fields": json.dumps(meta.fields, sort_keys=True),
    }


def decode_meta(kept: Mapping[bytes, bytes], where: str) -> Meta:
    """Reads the `meta` hash."""
    try:
        return Meta(
            partitions=int(kept[b"partitions"]),
            layout=bytes.fromhex(kept[b"layout"].decode()),
            fields=json.loads(kept[b"fields"]),
            schema=int(kept[b"schema"]),
        )
    except (KeyError, ValueError) as error:
        raise WrongServer(f"{where}: its meta cannot be read ({error}): take another namespace.") from error


def compare_meta(kept: Meta, wanted: Meta, where: str) -> None:
    """Raises FleetMismatch if a fleet was made with other values than the ones at hand."""
    if kept.schema != SCHEMA:
        raise FleetMismatch(
            f"{where} has schema {kept.schema}, this version knows schema {SCHEMA}: "
            "use the version that made it, or another namespace."
        )
    if kept.partitions != wanted.partitions:
        raise FleetMismatch(
            f"{where} was made with {kept.partitions} partitions, {wanted.partitions} were asked for: "
            f"ask for {kept.partitions}, or take another namespace."
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
