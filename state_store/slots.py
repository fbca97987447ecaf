"""Which node of a Redis Cluster has a key: a key's slot, and who has the slot. Pure.

slot = crc16(what stands between the first "{" and the next "}", else the whole key) mod 16384
"""

from binascii import crc_hqx
from typing import Any

SLOTS = 16_384
Node = tuple[str, int]  # Host and port.
SlotMap = list[Node | None]  # By slot.

# Commands whose keys do not come first. The node in the URL answers those that have none.
_KEYLESS = {"INFO", "TIME", "CONFIG", "ACL", "SCRIPT", "CLUSTER", "CLIENT", "REPLICAOF", "PING", "DEBUG", "SHUTDOWN"}
_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "XINFO": 2, "XGROUP": 2, "OBJECT": 2}


def slot_of(key: bytes) -> int:
    """Gives the slot of a key."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return crc_hqx(key[start + 1 : end] if end > start + 1 else key, 0) % SLOTS


def key_of(words: tuple[Any, ...]) -> bytes | None:
    """Gives the first key of a command; all of ours keep theirs in one slot."""
    name = words[0].upper() if isinstance(words[0], str) else words[0].decode().upper()
    place = _KEY_AT.get(name, 1)
    if name in _KEYLESS or place >= len(words):
        return None
    key = words[place]
    return key.encode() if isinstance(key, str) else key


def read_slots(reply: list, host: str) -> SlotMap:
    """Turns the answer to CLUSTER SLOTS into the node of every slot; one that does not know its own host is `host`."""
    nodes: SlotMap = [None] * SLOTS
    for first, last, primary, *_ in reply:
        node = (known_host(primary[0], host), int(primary[1]))
        nodes[first : last + 1] = [node] * (last + 1 - first)
    return nodes


def known_host(named: bytes | str | None, asked: str) -> str:
    """A node may leave its host out: then it is the one that was asked."""
    name = named.decode() if isinstance(named, bytes) else named
    return asked if name in (None, "", "?") else name
