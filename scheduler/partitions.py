"""Says which partition an asset belongs to: the same answer for ever, in any language.

    partition = crc32(utf8(asset)) mod partitions

A name is any UTF-8 of 1 to 256 bytes; what stands before its first slash is the tenant.
"""

import zlib

from scheduler.errors import BadAsset, BadRules

ASSET_BYTES_MAX = 256
PARTITIONS_MAX = 16_384  # Redis Cluster has no more hash slots than this.


def partition_of(asset: bytes | str, partitions: int) -> int:
    """Finds the partition of an asset; `partitions` never changes in the life of a fleet."""
    return zlib.crc32(asset.encode() if isinstance(asset, str) else asset) % partitions


def check_asset(asset: bytes | str) -> bytes:
    """Returns the name as UTF-8, or says why it cannot be one."""
    encoded = asset if isinstance(asset, bytes) else _encode(asset)
    if not encoded:
        raise BadAsset("asset is empty; a name has 1 to 256 bytes of UTF-8")
    if len(encoded) > ASSET_BYTES_MAX:
        raise BadAsset(f"asset has {len(encoded)} bytes, at most {ASSET_BYTES_MAX} are allowed: {encoded[:32]!r}...")
    if isinstance(asset, bytes):
        _decode(asset)
    return encoded


def check_partitions(partitions: int) -> int:
    """Returns the number of partitions if a fleet can have that many."""
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise BadRules(f"partitions must be 1 to {PARTITIONS_MAX}, got {partitions}")
    return partitions


def tenant_of(asset: bytes | str) -> str:
    """Returns what stands before the first slash, or nothing: `acme/EURUSD` belongs to `acme`."""
    name = asset if isinstance(asset, str) else _decode(asset)
    tenant, slash, _ = name.partition("/")
    return tenant if slash else ""


def _encode(asset: str) -> bytes:
    try:
        return asset.encode()
    except UnicodeEncodeError as error:
        raise BadAsset(f"asset is not valid Unicode: {asset!r} ({error.reason})") from None


def _decode(asset: bytes) -> str:
    try:
        return asset.decode()
    except UnicodeDecodeError as error:
        raise BadAsset(f"asset is not UTF-8: {asset[:32]!r} ({error.reason} at byte {error.start})") from None
