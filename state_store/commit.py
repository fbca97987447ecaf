"""The atomic step: states, predictions, dead letters and cursor of one partition move together, or nothing does.

One write, one round trip, for the whole micro-batch:

    MULTI
      XADD predictions <tick id> a t p [r]          one for each tick: its id is the tick's own
      HSET latest asset value ...                   value = MessagePack [tick id, prediction]
      HSET states asset record ...
      XADD rejected <tick id> a reason payload      one for each dead letter
      HSET control cursor applied state_cursor attempts until [marks]
      [EVAL: XTRIM ticks, count what went]  [XTRIM predictions]
      TIME
    EXEC
    WATCH control, HMGET control ...

WATCH and HMGET ride behind and are the check for the next commit: whoever touches `control` in between turns the
next EXEC into nil. Nothing inside the EXEC can fail while the checked values hold; if something does, somebody
wrote to the partition's keys past the lease, and the partition is sealed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from operator import mod
from typing import Any

from state_store.contract import Commit, Control, Lease, Outcome, Retention, ascending, id_order
from state_store.keys import PartitionKeys
from state_store.lease import CONTROL_FIELDS
from state_store.retention import advance, decode_marks, encode_marks
from state_store.wire import ServerError, encode

_TRIM_LUA = (
    "local n = redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1], 'LIMIT', '0') "
    "redis.call('HINCRBY', KEYS[2], 'trimmed', n) return n"
)
_MULTI, _EXEC, _TIME = encode("MULTI"), encode("EXEC"), encode("TIME")
_ID_BYTES_MAX = 41
_SHORTEST_NINETEEN = 10**18
_TEXTS_MAX = 262_144  # more than a worker keeps states of
_PARTITIONS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of a commit and what to expect for them."""

    data: bytes
    replies: int
    ids: list[bytes]
    rejected_ids: list[bytes]


def settle(control: Control, lease: Lease, commit: Commit) -> Outcome | None:
    """Judges a commit by what the server holds; None means that it may be sent (again)."""
    if control.cursor == commit.after != commit.before:
        return Outcome.ALREADY
    if (control.epoch, control.nonce) != (lease.epoch, lease.nonce):
        return Outcome.FENCED
    if control.cursor != commit.before or _goes_back(control, commit):
        return Outcome.CONFLICT
    return None


def _goes_back(control: Control, commit: Commit) -> bool:
    """Whether the stored states reflect more: a late copy of some states would say that the others are missing."""
    reflected = commit.state_cursor
    if reflected is None or reflected == control.state_cursor:
        return False
    return id_order(reflected) < id_order(control.state_cursor)


def build(commit: Commit, control: Control, keys: PartitionKeys, retention: Retention, until_ms: int) -> Request:
    """Writes the whole transaction. The arrays are copied: they may change once this has returned."""
    assert ascending(commit.ids), "predictions must come in the order of their ticks"
    assert len(commit.ids) == len(commit.assets) == len(commit.times_ns) == len(commit.payloads), "one each"
    assert len(commit.state_assets) == len(commit.state_records), "one record for each asset"
    tail = [*_dead_letters(commit, keys, retention), *_cursor(commit, control, keys, retention, until_ms), _TIME]
    pieces: list[bytes | memoryview] = [_MULTI]
    commands = len(tail)
    if commit.ids:
        payloads = commit.payloads.tolist()
        pieces += _predictions(commit, keys, payloads)
        pieces += _latest(commit, keys, payloads)
        commands += len(commit.ids) + 1
    if commit.state_assets:
        pieces += _states(commit, keys)
        commands += 1
    pieces += [*tail, _EXEC, watch_words(keys.control)]
    rejected_ids = [letter.id for letter in commit.rejected]
    return Request(b"".join(pieces), commands + 4, commit.ids, rejected_ids)


@lru_cache(maxsize=_PARTITIONS_KEPT)
def watch_words(control: bytes) -> bytes:
    """Watches `control` and reads what has to hold at the next commit: two replies."""
    return encode("WATCH", control) + encode("HMGET", control, *CONTROL_FIELDS)


def latest_value(entry_id: bytes, payload: bytes) -> bytes:
    """Joins id and payload into a MessagePack array of two, without decoding either."""
    return _latest_header(len(entry_id)) + entry_id + payload


def _latest_header(length: int) -> bytes:
    """Opens the array and the id's string (ids have up to 41 bytes)."""
    return bytes([0x92, 0xA0 | length]) if length < 32 else bytes([0x92, 0xD9, length])


# The writers below fill one template for each tick; of what depends only on the length of an id there is a table.


def _predictions(commit: Commit, keys: PartitionKeys, payloads: list[bytes]) -> list[bytes]:
    times: list[Any] = commit.times_ns.tolist()
    time = b"$19\r\n%d"
    if min(times) < _SHORTEST_NINETEEN:
        times, time = [b"%d\r\n%d" % (len(str(time_ns)), time_ns) for time_ns in times], b"$%b"
    templates = _xadd_templates(keys.predictions, time, len(payloads[0]))
    lines = _filled(templates, commit.ids, zip(commit.ids, _texts_of(commit.assets), times, payloads, strict=True))
    if commit.request_ids is None:
        return lines
    asked = zip(lines, commit.request_ids, strict=True)
    return [line if request is None else _with_request(line, request) for line, request in asked]


def _latest(commit: Commit, keys: PartitionKeys, payloads: list[bytes]) -> list[bytes]:
    """Writes each asset's last prediction, once."""
    last = dict(zip(commit.assets, range(len(payloads)), strict=True))
    ids = [commit.ids[place] for place in last.values()]
    rows = zip(_texts_of(last), ids, [payloads[place] for place in last.values()], strict=True)
    return [_hset(keys.latest, len(last)), *_filled(_latest_templates(len(payloads[0])), ids, rows)]


def _filled(templates: list[bytes], ids: list[bytes], rows: Iterable[tuple]) -> list[bytes]:
    return list(map(mod, map(templates.__getitem__, map(len, ids)), rows))


def _states(commit: Commit, keys: PartitionKeys) -> Iterable[bytes | memoryview]:
    records = commit.state_records.reshape(-1).data
    size = commit.state_records.shape[1]
    rows = [records[start : start + size] for start in range(0, len(records), size)]
    columns = (_texts_of(commit.state_assets), repeat(b"$%d\r\n" % size), rows, repeat(b"\r\n"))
    return chain([_hset(keys.states, len(rows))], chain.from_iterable(zip(*columns, strict=False)))


@lru_cache(maxsize=1024)
def _xadd_templates(key: bytes, time: bytes, payload_bytes: int) -> list[bytes]:
    """By length of the id: for id, asset as it goes over the wire, time and payload. No key has a percent sign."""
    xadd = b"*9\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n" % (len(key), key)
    fields = b"\r\n%%b\r\n$1\r\na\r\n%%b$1\r\nt\r\n%b\r\n$1\r\np\r\n$%d\r\n%%b\r\n" % (time, payload_bytes)
    return [xadd + b"$%d" % length + fields for length in range(_ID_BYTES_MAX + 1)]


def _with_request(line: bytes, request: bytes) -> bytes:
    return b"*11" + line.removeprefix(b"*9") + b"$1\r\nr\r\n$%d\r\n%b\r\n" % (len(request), request)


@lru_cache(maxsize=1024)
def _latest_templates(payload_bytes: int) -> list[bytes]:
    """By length of the id: for asset as it goes over the wire, id and payload."""
    headers = map(_latest_header, range(_ID_BYTES_MAX + 1))
    return [
        b"%%b$%d\r\n%b%%b%%b\r\n" % (len(head) + length + payload_bytes, head) for length, head in enumerate(headers)
    ]


class _Texts(dict[bytes, bytes]):
    """Assets as they go over the wire; the same come again with every commit."""

    def __missing__(self, asset: bytes) -> bytes:
        if len(self) >= _TEXTS_MAX:
            self.clear()
        self[asset] = text = b"$%d\r\n%b\r\n" % (len(asset), asset)
        return text


_texts = _Texts()


def _texts_of(assets: Iterable[bytes]) -> Iterator[bytes]:
    return map(_texts.__getitem__, assets)


def _hset(key: bytes, pairs: int) -> bytes:
    return b"*%d\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n" % (2 + 2 * pairs, len(key), key)


def _dead_letters(commit: Commit, keys: PartitionKeys, retention: Retention) -> list[bytes]:
    head = ("XADD", keys.rejected, "MAXLEN", "~", str(retention.rejected))
    return [
        encode(*head, letter.id, "a", letter.asset, "reason", letter.reason, "payload", letter.payload)
        for letter in commit.rejected
    ]


def _cursor(
    commit: Commit, control: Control, keys: PartitionKeys, retention: Retention, until_ms: int
) -> list[bytes]:
    applied = control.applied + commit.applied
    state_cursor = commit.after if commit.state_cursor is None else commit.state_cursor
    kept = decode_marks(control.marks)
    marks, floor = advance(kept, applied, state_cursor, retention.ticks)
    fields: list[bytes | str] = ["cursor", commit.after, "applied", str(applied), "state_cursor", state_cursor]
    fields += ["attempts", "0", "until", str(until_ms)]
    if marks is not kept:
        fields += ["marks", encode_marks(marks)]
    commands = [encode("HSET", keys.control, *fields)]
    if floor is not None:
        commands.append(encode("EVAL", _TRIM_LUA, "2", keys.ticks, keys.control, floor))
    if commit.ids:
        commands.append(_trim(keys.predictions, retention.predictions))
    return commands


@lru_cache(maxsize=_PARTITIONS_KEPT)
def _trim(key: bytes, length: int) -> bytes:
    return encode("XTRIM", key, "MAXLEN", "~", str(length))


def executed(reply: object, request: Request) -> str | None:
    """Checks what EXEC answered against what was sent; gives what is wrong, if anything is."""
    if not isinstance(reply, list):
        return f"EXEC answered {reply!r}"
    predicted, others = reply[: len(request.ids)], reply[len(request.ids) :]
    as_sent = predicted == request.ids
    errors = [str(part) for part in (others if as_sent else reply) if isinstance(part, ServerError)]
    if errors:
        return errors[0]
    if not as_sent:
        return "predictions got other ids than their ticks"
    if not set(request.rejected_ids) <= set(filter(_is_bytes, others)):
        return "dead letters got other ids than their ticks"
    return None


def _is_bytes(part: object) -> bool:
    return isinstance(part, bytes)


def server_ms(reply: Any) -> int:
    """Reads the server's clock from the last part of what EXEC answered."""
    seconds, microseconds = reply[-1]
    return int(seconds) * 1000 + int(microseconds) // 1000
