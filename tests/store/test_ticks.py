"""Columns out of stream entries: any bytes, and the same as a slow reader would find."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from state_store.keys import partition_of
from state_store.ticks import _FEW, AssetCheck, parse

ALL = 1  # One partition, so that every asset is at home.


def slow_tick(fields: list[bytes]) -> tuple[float, int] | None:
    """What a careful person would read; None when the tick is no good."""
    named = dict(zip(fields[0::2], fields[1::2], strict=False))
    if not {b"a", b"y", b"t"} <= named.keys():
        return None
    try:
        asset, value, time_ns = named[b"a"].decode(), float(named[b"y"]), int(named[b"t"])
    except (ValueError, UnicodeDecodeError):
        return None
    plain_value = set(named[b"y"]) <= set(b"0123456789+-.eE")
    plain_time = set(named[b"t"]) <= set(b"0123456789+-")
    fits = 1 <= len(asset.encode()) <= 256 and -(2**63) <= time_ns < 2**63 and len(named.get(b"r", b"")) <= 256
    return (value, time_ns) if plain_value and plain_time and fits and math.isfinite(value) else None


def entries_of(ticks: list[list[bytes]]) -> list:
    return [[b"1700000000%03d-%d" % (place % 1000, place), fields] for place, fields in enumerate(ticks)]


texts = st.one_of(
    st.binary(max_size=24),
    st.sampled_from([b"", b"a", b"1_000", b" 1", b"1 ", b"nan", b"-inf", b"1e999", b"0x10", b"1.5", b"-2E+3", b"\xff"]),
    st.sampled_from([b"9223372036854775807", b"9223372036854775808", b"9999999999999999999", b"1" * 5000, b"+7", b"-"]),
    st.floats().map(lambda number: repr(number).encode()),
    st.integers(-(2**64), 2**64).map(lambda number: b"%d" % number),
    st.text(max_size=8).map(str.encode),
)
good = st.tuples(
    st.sampled_from([b"EURUSD", "Zürich".encode(), b"x\x00y", b"a b"]),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: repr(number).encode()),
    st.integers(10**18, 2**63 - 1).map(lambda number: b"%d" % number),
).map(lambda tick: [b"a", tick[0], b"y", tick[1], b"t", tick[2]])
wild = st.lists(st.tuples(st.sampled_from([b"a", b"y", b"t", b"r", b"g", b"\xfe"]), texts), max_size=6).map(
    lambda pairs: [piece for pair in pairs for piece in pair]
)
doubtful = st.tuples(texts, texts, texts).map(lambda tick: [b"a", tick[0], b"y", tick[1], b"t", tick[2]])
batches = st.one_of(
    st.lists(good, min_size=1), st.lists(st.one_of(good, doubtful, wild)), st.lists(doubtful, max_size=3)
)


def many(ticks: list) -> list:
    """So many that their numbers are read by arrays, where there are any."""
    return ticks * (1 + _FEW // max(1, len(ticks)))


@pytest.mark.parametrize("size", [list, many])
@given(batches)
@example(ticks=[[b"a", b"x", b"y", b"1", b"t", b"1-" + b"1" * 17]])  # As wide as a plain time.
def test_columns_equal_what_a_slow_reader_finds(size, ticks):
    check, ticks = AssetCheck(0, ALL), size(ticks)
    for _ in range(2):  # The second time the assets are known, so the columnar way is open.
        found = parse(entries_of(ticks), check)
        for place, fields in enumerate(ticks):
            expected = slow_tick(fields)
            assert (place in found.malformed) == (expected is None), found.malformed
            if expected is None:
                assert math.isnan(found.values[place]) and found.malformed[place]
            else:
                assert (found.values[place], found.times_ns[place]) == expected
                assert found.assets[place] == dict(zip(fields[0::2], fields[1::2], strict=False))[b"a"]


@pytest.mark.parametrize("size", [list, many])
@given(st.lists(good, min_size=1, max_size=40))
def test_known_assets_with_plain_numbers_take_the_columnar_way(size, ticks):
    check, ticks = AssetCheck(0, ALL), size(ticks)
    slow = parse(entries_of(ticks), check)
    quick = parse(entries_of(ticks), check)
    assert quick.ids == slow.ids and quick.assets == slow.assets and not quick.malformed
    for one, two in zip(
        (quick.values, quick.times_ns, quick.arrivals_ns), (slow.values, slow.times_ns, slow.arrivals_ns), strict=True
    ):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ([], "no field a"),
        ([b"a", b"x", b"t", b"1"], "no field y"),
        ([b"a", b"x", b"y", b"1"], "no field t"),
        ([b"a", b"", b"y", b"1", b"t", b"1"], "asset is empty"),
        ([b"a", b"x" * 257, b"y", b"1", b"t", b"1"], "asset is longer than 256 bytes"),
        ([b"a", b"\xc3", b"y", b"1", b"t", b"1"], "asset is not UTF-8"),
        ([b"a", b"x", b"y", b"abc", b"t", b"1"], "not a number: 'abc'"),
        ([b"a", b"x", b"y", b"1_000", b"t", b"1"], "not a number: '1_000'"),
        ([b"a", b"x", b"y", b" 1", b"t", b"1"], "not a number: ' 1'"),
        ([b"a", b"x", b"y", b"NaN", b"t", b"1"], "not finite: 'NaN'"),
        ([b"a", b"x", b"y", b"1e999", b"t", b"1"], "not finite: '1e999'"),
        ([b"a", b"x", b"y", b"1", b"t", b"1.5"], "timestamp is not an integer: '1.5'"),
        ([b"a", b"x", b"y", b"1", b"t", b"1_0"], "timestamp is not an integer: '1_0'"),
        ([b"a", b"x", b"y", b"1", b"t", b"9" * 19], f"timestamp does not fit 64 bits: '{'9' * 19}'"),
        ([b"a", b"x", b"y", b"1", b"t", b"1", b"r", b"q" * 257], "request id is too long"),
    ],
)
def test_a_malformed_tick_has_its_reason(fields, reason):
    assert parse(entries_of([fields]), AssetCheck(0, ALL)).malformed == {0: reason}


def test_an_asset_in_a_foreign_partition_is_malformed():
    home = partition_of(b"EURUSD", 16)
    ticks = entries_of([[b"a", b"EURUSD", b"y", b"1", b"t", b"1"]])
    assert not parse(ticks, AssetCheck(home, 16)).malformed
    reason = parse(ticks, AssetCheck((home + 1) % 16, 16)).malformed[0]
    assert reason == f"asset belongs to partition {home} (crc32 mod 16), not {(home + 1) % 16}"


def test_partitions_are_stable_for_ever():
    assert partition_of(b"123456789", 2**32) == 0xCBF43926  # The check value of CRC-32.
    assert [partition_of(asset, 16) for asset in (b"EURUSD", b"acme/EURUSD", "Zürich".encode())] == [11, 6, 14]


def test_arrival_is_the_milliseconds_of_the_id():
    fields = [b"a", b"x", b"y", b"1", b"t", b"1"]
    ids = [b"1700000000123-0", b"17-3", b"18446744073709551615-1"]
    found = parse([[entry_id, fields] for entry_id in ids], AssetCheck(0, ALL))
    assert found.arrivals_ns.tolist() == [1_700_000_000_123_000_000, 17_000_000, 9_223_372_036_854_000_000]


@pytest.mark.parametrize("ids", [[b"1700000000123-7", b"9999999999999-12"], [b"1700000000123-0", b"17000000001234-0"]])
def test_arrivals_of_a_long_read_are_those_of_its_ticks_alone(ids):
    entries = [[entry_id, [b"a", b"x", b"y", b"1", b"t", b"1"]] for entry_id in ids]
    alone = [int(parse([entry], AssetCheck(0, ALL)).arrivals_ns[0]) for entry in entries]
    found = parse(many(entries), AssetCheck(0, ALL)).arrivals_ns.tolist()
    assert len(found) > _FEW and set(found) == set(alone) and min(alone) > 0
    assert found == many(alone)


def test_a_part_of_a_read_keeps_its_malformed_ticks():
    ticks = [[b"a", b"x", b"y", text, b"t", b"1"] for text in (b"1", b"bad", b"2", b"worse")]
    part = parse(entries_of(ticks), AssetCheck(0, ALL))[1:3]
    assert len(part) == 2 and part.malformed == {0: "not a number: 'bad'"} and part.values[1] == 2.0


def test_the_payload_of_a_huge_tick_is_cut():
    found = parse(entries_of([[b"a", b"x", b"y", b"z" * 10**6, b"t", b"1"]]), AssetCheck(0, ALL))
    assert len(found.payload(0)) < 1000
