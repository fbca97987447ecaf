"""Rows keep every bit, and a record that was touched is never taken for a good one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor_core import CorruptRecord, WrongLayout, decode_record, encode_records
from predictor_core.layout import fields_of, into_lanes, into_rows, layout_of, pack, rows_of, unpack

FINGERPRINT = bytes(range(8))


def tree():
    return {
        "small": np.zeros((3,), np.float32),
        "count": np.zeros((), np.int32),
        "time": np.zeros((), np.int64),
        "bits": np.zeros((2, 2), np.uint32),
        "level": np.zeros((2,), np.float64),
        "long": np.zeros((150,), np.float32),
    }


@pytest.fixture(params=[False, True], ids=["narrow", "wide"])
def layout(request):
    return layout_of(tree, request.param)


@pytest.fixture
def rows(layout, rng):
    """Random bits, so signalling NaNs and denormals too, for 128 assets."""
    rows = np.zeros((128, layout.words), np.uint32)
    for field in fields_of(layout, rows).values():
        field[...] = np.frombuffer(rng.bytes(field.nbytes), field.dtype).reshape(field.shape)
    return rows


def test_unpack_then_pack_keeps_every_bit(layout, rows):
    def again(rows):
        new = jnp.zeros_like(rows)
        for first in (jnp.int32(0), jnp.int32(64)):
            new = into_rows(new, first, pack(layout, unpack(layout, into_lanes(rows, first, 64))))
        return new

    with jax.enable_x64(True):
        assert np.asarray(jax.jit(again)(rows)).tobytes() == rows.tobytes()


def test_the_device_and_numpy_see_the_same_leaves(layout, rows):
    with jax.enable_x64(True):
        device = jax.tree.map(np.asarray, unpack(layout, jnp.asarray(rows).T))
    for name, field in fields_of(layout, rows).items():
        assert device[name].tobytes() == np.ascontiguousarray(np.moveaxis(field, 0, -1)).tobytes()
    assert rows_of(layout, device).tobytes() == rows.tobytes()


def test_wide_numbers_are_aligned(layout):
    assert layout.words % 2 == 0
    assert all(leaf.start % 2 == 0 for leaf in layout.leaves if leaf.dtype.itemsize == 8)


def test_a_fingerprint_knows_names_shapes_dtypes_and_more():
    def fingerprint_with(**changes):
        return layout_of(lambda: {**tree(), **changes}).fingerprint()

    prints = {
        fingerprint_with(),
        fingerprint_with(small=np.zeros(4, np.float32)),
        fingerprint_with(count=np.zeros((), np.uint32)),
        fingerprint_with(other=np.zeros((), np.float32)),
        layout_of(tree).fingerprint(1),
        layout_of(tree, every_number_wide=True).fingerprint(),
    }
    assert len(prints) == 6
    assert layout_of(tree).fingerprint() == fingerprint_with()


def records(count=3, words=7):
    rows = np.arange(count * words, dtype=np.uint32).reshape(count, words)
    return rows, encode_records(rows, FINGERPRINT)


def test_a_record_gives_its_row_back():
    rows, encoded = records()
    for row, record in zip(rows, encoded, strict=True):
        assert decode_record(record.tobytes(), FINGERPRINT).tolist() == row.tolist()
    wide = rows.astype(np.uint64)
    (record, *_) = encode_records(wide, FINGERPRINT)
    assert decode_record(record.tobytes(), FINGERPRINT).tolist() == wide[0].tolist()
    assert encode_records(rows[:0], FINGERPRINT).shape == (0, encoded.shape[1])


def test_every_flipped_bit_is_caught():
    record = bytearray(records()[1][1].tobytes())
    for bit in range(8 * len(record)):
        record[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord):
            decode_record(bytes(record), FINGERPRINT)
        record[bit // 8] ^= 1 << bit % 8


def test_every_cut_is_caught():
    record = records()[1][1].tobytes()
    for length in range(len(record)):
        with pytest.raises(CorruptRecord):
            decode_record(record[:length], FINGERPRINT)
    with pytest.raises(CorruptRecord, match="cannot have"):
        decode_record(record + b"\0", FINGERPRINT)


def test_another_layout_is_named_not_guessed():
    record = records()[1][0].tobytes()
    with pytest.raises(WrongLayout, match=FINGERPRINT.hex()):
        decode_record(record, bytes(8))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_typed_error(data, with_magic):
    with pytest.raises((CorruptRecord, WrongLayout)):
        decode_record(b"USP1" + data if with_magic else data, FINGERPRINT)
