"""A file of ticks: its columns, and each mistake with its line."""

import math

import pytest

from worker.errors import BadInput
from worker.ticksfile import TicksFile


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ticks.csv"

    def write(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_columns_may_come_in_any_order_and_others_are_ignored(file):
    read = TicksFile(file("value,note,asset,timestamp_ns\n1.5,x,A,10\n2,y,B/é,20\n"))
    assert read.assets == ["A", "B/é"]
    assert read.values.tolist() == [1.5, 2.0]
    assert read.times_ns.tolist() == read.arrivals_ns.tolist() == [10, 20]


def test_arrivals_and_depths_are_taken_where_given(file):
    read = TicksFile(file("asset,timestamp_ns,value,arrival_ns,depth\nA,10,1,15,2\n"))
    assert (read.arrivals_ns.tolist(), read.depths.tolist()) == ([15], [2])


def test_an_empty_file_of_ticks_is_fine(file):
    assert len(TicksFile(file("asset,timestamp_ns,value\n"))) == 0


def test_a_replay_may_hold_values_that_are_not_finite(file):
    nan, infinity = TicksFile(file("asset,timestamp_ns,value\nA,1,nan\nA, 2, -inf\n")).values
    assert math.isnan(nan) and infinity == -math.inf


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the header needs asset,timestamp_ns,value; missing: asset, timestamp_ns, value"),
        ("asset,value\n", "line 1: .* missing: timestamp_ns"),
        ("asset,timestamp_ns,value\nA,1,2\nA,2\n", "line 3: expected 3 columns, found 2"),
        ("asset,timestamp_ns,value\nA,1,abc\n", "line 2: value must be a number, found 'abc'"),
        ("asset,timestamp_ns,value\nA,1,1_5\n", "line 2: value must be a number, found '1_5'"),
        ("asset,timestamp_ns,value\nA,1_5,2\n", "line 2: timestamp_ns must be a whole number, found '1_5'"),
        ("asset,timestamp_ns,value\nA,1.5,2\n", "line 2: timestamp_ns must be a whole number, found '1.5'"),
        ("asset,timestamp_ns,value\nA,99999999999999999999,2\n", "line 2: timestamp_ns must fit in 64 bits"),
        ("asset,timestamp_ns,value\n,1,2\n", "line 2: asset is empty"),
        (f"asset,timestamp_ns,value\n{'a' * 257},1,2\n", "line 2: asset has 257 bytes"),
        ("asset,timestamp_ns,value\nA,1,inf\n", "line 2: value must be finite, found 'inf'"),
        ("asset,timestamp_ns,value,depth\nA,1,2,4\n", "line 2: depth must be one of 1, 2, 3, 5, found '4'"),
        (b"asset,timestamp_ns,value\n\xff,1,2\n", "is not UTF-8 text"),
        ('asset,timestamp_ns,value\n"A,1,2\n', "line 2: unexpected end of data"),
    ],
)
def test_a_mistake_names_its_line(file, text, told):
    with pytest.raises(BadInput, match=told):
        TicksFile(file(text), finite=True)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="none.csv cannot be read: No such file"):
        TicksFile(tmp_path / "none.csv")
