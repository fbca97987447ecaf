"""Every key name, and the rule that gives an asset its partition.

The keys of one partition share a hash tag, so they live on one node and roll back together; so do the tuner's. Every
other key of the fleet is alone in its scripts and needs no tag: in a Redis Cluster no request spans two slots.
A fleet whose number of partitions was changed goes on in the next generation of keys: `{p}` becomes `{generation.p}`.
"""

import re
from dataclasses import dataclass
from zlib import crc32

from state_store.errors import BadUrl

ASSET_BYTES_MAX = 256
TO_OPEN = "{%d+%.%d+}"  # In Lua: a key of a later generation, which holds nothing good before it is opened.
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one fleet's keys."""

    namespace: str = "usp"
    generation: int = 0

    def __post_init__(self):
        if not _NAMESPACE.fullmatch(self.namespace):
            raise BadUrl(f"The namespace {self.namespace!r} cannot be used: take 1 to 64 of A-Z a-z 0-9 . _ -")

    @property
    def meta(self) -> str:
        return f"{self.namespace}:meta"

    @property
    def workers(self) -> str:
        return f"{self.namespace}:workers"

    @property
    def config(self) -> str:
        return f"{self.namespace}:config"

    @property
    def audit(self) -> str:
        return f"{self.namespace}:audit"

    @property
    def hotpath(self) -> "HotpathKeys":
        """Names the keys of the tuner."""
        tag = f"{self.namespace}:{{hotpath}}"
        return HotpathKeys(*(f"{tag}:{name}" for name in HotpathKeys.__dataclass_fields__))

    def of(self, partition: int) -> "PartitionKeys":
        """Names the keys of one partition."""
        tag = f"{self.namespace}:{{{tag_of(self.generation, partition)}}}"
        return PartitionKeys(*(f"{tag}:{name}".encode() for name in PartitionKeys.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition, as bytes ready for the wire."""

    ticks: bytes
    control: bytes
    states: bytes
    predictions: bytes
    latest: bytes
    rejected: bytes
    producers: bytes
    put_aside: bytes
    frames: bytes  # hash: framed, the ticks beyond one an entry that frames have brought


@dataclass(frozen=True, slots=True)
class HotpathKeys:
    """The keys of the tuner: one hash tag, so that one script may change all of them."""

    leader: str  # hash: owner, nonce, token, until
    fence: str  # hash: the last token given out; never expires
    config: str  # hash: generation, fence, document
    history: str  # hash: generation -> document
    engine: str  # hash: checkpoint, last (proposal id), mode
    audit: str  # stream, never trimmed before it is archived
    archive: str  # hash: how far the audit is archived: id, head (of the chain), count
    recent: str  # stream, capped: what happened lately, without the inputs of decisions
    digests: str  # stream, capped
    commands: str  # stream, capped
    answers: str  # hash: command id -> what became of it
    acks: str  # hash: worker -> when it was seen, and under which configuration
    switch: str  # hash: frozen; read by the workers themselves
    news: str  # stream, capped: hints that there is something new


def tag_of(generation: int, partition: int) -> str:
    """What stands in the braces of a partition's keys."""
    return f"{generation}.{partition}" if generation else str(partition)


def partition_of(asset: bytes, partitions: int) -> int:
    """Gives the partition of an asset, the same in every language and for ever."""
    return crc32(asset) % partitions


def asset_fault(asset: bytes) -> str | None:
    """Says what is wrong with an asset's name, if anything is."""
    if not asset:
        return "asset is empty"
    if len(asset) > ASSET_BYTES_MAX:
        return f"asset is longer than {ASSET_BYTES_MAX} bytes"
    try:
        asset.decode()
    except UnicodeDecodeError:
        return "asset is not UTF-8"
    return None
