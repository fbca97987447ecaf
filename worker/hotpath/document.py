"""One document per configuration: whole or nothing, and checked before anything of it is believed.

    {"schema", "fleet", "group", "generation", "fence", "phase": centre | plus | minus, "centre": {}, "live": {},
     "probe_ttl_ms", "settle_ms", "registry", "issued_us", "sha256": of all the rest as canonical JSON}

The values are in the knobs' own units. A worker that hears nothing more goes back to `centre` by itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from scheduler.hotpath import KnobRegistry
from worker.hotpath.knobs import GROUP

SCHEMA = 1
REFUSALS = ("unreadable", "schema", "checksum", "fleet", "registry", "limits", "order")
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class RefusedDocument(Exception):
    """A document that a worker does not follow; `kind` is one of REFUSALS."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Document:
    """A configuration as it goes to the workers."""

    fleet: str
    generation: int
    fence: int
    phase: str
    centre: Mapping[str, float]
    live: Mapping[str, float]
    probe_ttl_ms: int
    settle_ms: int
    registry: int
    issued_us: int
    group: str = GROUP
    schema: int = SCHEMA

    @property
    def pair(self) -> tuple[int, int]:
        return self.fence, self.generation

    def encode(self) -> bytes:
        body = asdict(self)
        return _ENCODER.encode(body | {"sha256": _checksum(body)}).encode()


def decode(encoded: bytes, fleet: str, registry: KnobRegistry) -> Document:
    """Reads a document; raises RefusedDocument with the first thing that is wrong."""
    body = _parsed(encoded)
    if body.get("schema") != SCHEMA:
        raise RefusedDocument("schema", f"its schema is {body.get('schema')}, known is {SCHEMA}")
    if body.pop("sha256", None) != _checksum(body):
        raise RefusedDocument("checksum", "its checksum does not fit")
    try:
        document = Document(**body)
    except TypeError as error:
        raise RefusedDocument("unreadable", str(error)) from None
    if (document.fleet, document.group) != (fleet, GROUP):
        raise RefusedDocument("fleet", f"it is for {document.fleet}/{document.group}")
    if document.registry != registry.hash64:
        raise RefusedDocument("registry", f"its knobs are those of {document.registry}, ours {registry.hash64}")
    for values in (document.centre, document.live):
        _check_limits(values, registry)
    return document


def _parsed(encoded: bytes) -> dict:
    try:
        body = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise RefusedDocument("unreadable", f"it is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise RefusedDocument("unreadable", "it is no JSON object")
    return body


def _check_limits(values: object, registry: KnobRegistry) -> None:
    if not isinstance(values, dict) or set(values) != set(registry.names):
        raise RefusedDocument("limits", f"its knobs are not {', '.join(registry.names)}")
    for knob in registry.knobs:
        value = values[knob.name]
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and knob.lo <= value <= knob.hi
        if not good or (knob.kind == "int" and value != int(value)):
            raise RefusedDocument("limits", f"{knob.name} is {value}, allowed is {knob.lo} to {knob.hi}")


def _checksum(body: dict) -> str:
    return hashlib.sha256(_ENCODER.encode(body).encode()).hexdigest()
