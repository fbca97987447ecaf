import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadAsset, BadRules
from scheduler.partitions import check_asset, check_partitions, partition_of, tenant_of


@pytest.mark.parametrize(
    ("asset", "partition"),
    [("123456789", 0xCBF43926 % 16), ("EURUSD", 11), ("acme/EURUSD", 6), ("Ωmega", 11), (b"\x00", 13)],
)
def test_partitions_of_known_assets_never_change(asset, partition):
    assert partition_of(asset, 16) == partition


@given(st.text(min_size=1, max_size=60), st.integers(1, 512))
@settings(max_examples=100)
def test_text_and_bytes_of_a_name_share_a_partition(asset, partitions):
    encoded = asset.encode()
    assert partition_of(asset, partitions) == partition_of(encoded, partitions) == zlib.crc32(encoded) % partitions


@given(st.text(min_size=1, max_size=64))
@settings(max_examples=100)
def test_any_utf8_of_1_to_256_bytes_is_a_name(asset):
    assert check_asset(asset) == check_asset(asset.encode()) == asset.encode()


@pytest.mark.parametrize(
    ("asset", "reason"),
    [("", "empty"), (b"", "empty"), ("é" * 129, "258 bytes"), (b"\xff", "not UTF-8"), ("\ud800", "not valid Unicode")],
)
def test_other_names_are_refused_with_the_reason(asset, reason):
    with pytest.raises(BadAsset, match=reason):
        check_asset(asset)


def test_256_bytes_are_still_a_name():
    assert len(check_asset("é" * 128)) == 256


def test_a_fleet_has_at_least_one_partition():
    with pytest.raises(BadRules, match="got 0"):
        check_partitions(0)


def test_a_tenant_is_what_stands_before_the_slash():
    assert [tenant_of(name) for name in ("acme/EURUSD", b"acme/a/b", "EURUSD", "/x")] == ["acme", "acme", "", ""]
