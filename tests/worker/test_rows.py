"""The row table: a slot in flight is never given away, and nothing leaks."""

import numpy as np
import pytest

from state_store import Ticks
from worker.holding import Holding
from worker.keeping import Keeping
from worker.metrics import Metrics
from worker.rows import RowTable


@pytest.fixture
def table():
    return RowTable(np.zeros(4, np.uint32), capacity=8)


def fill(table, holding, codes):
    """Reads a tick of each asset, which numbers them in this order, and places their rows."""
    assets = [b"asset %d" % code for code in codes]
    zeros = np.zeros(len(assets), np.int64)
    holding.push(Ticks([b"1-0"] * len(assets), assets, zeros * 1.0, zeros, zeros, None, {}, [[]] * len(assets)))
    for code in codes:
        table.place(holding, code, np.full(4, code, np.uint32))


def test_each_asset_has_a_slot_of_its_own(table, lease):
    holding = Holding(lease)
    fill(table, holding, range(8))
    assert sorted(holding.slots[:8]) == list(range(8))
    assert all(table.rows[holding.slots[code], 0] == code for code in range(8))


def test_a_full_table_gives_away_idle_slots_only(table, lease):
    holding = Holding(lease)
    fill(table, holding, range(8))
    table.busy[holding.slots[3]] = 0
    fill(table, holding, [8])
    assert holding.slots[3] == -1
    assert (holding.slots[[0, 1, 2, 4, 5, 6, 7, 8]] >= 0).all()
    assert table.rows[holding.slots[8], 0] == 8


def test_a_table_smaller_than_what_is_in_flight_is_refused(table, lease):
    holding = Holding(lease)
    fill(table, holding, range(8))
    with pytest.raises(AssertionError, match="larger than the micro-batches"):
        fill(table, holding, [8])


def test_a_forgotten_holding_frees_all_its_slots_and_no_other(table, lease):
    one, other = Holding(lease), Holding(lease)
    fill(table, one, range(5))
    fill(table, other, range(3))
    table.forget(one)
    assert len(table) == 3
    assert (one.slots < 0).all()
    assert all(table.rows[other.slots[code], 0] == code for code in range(3))


def test_an_asset_with_several_ticks_keeps_its_row_busy_once(table, lease):
    holding, keeping = Holding(lease), Keeping(None, table, b"", Metrics())
    fill(table, holding, range(3))
    table.busy[:] = 0
    codes = np.array([2, 0, 2, 2, 0])
    assert keeping.use(holding, codes) == []
    keeping.ahead(holding, codes)
    assert table.busy[holding.slots[:3]].tolist() == [2, 0, 2]
    keeping.ahead(holding, codes)
    keeping.done(holding.slots[codes])
    assert table.busy[holding.slots[:3]].tolist() == [1, 0, 1], "ahead of the stored states, until they are stored"
    keeping.stored(holding, np.array([0, 2]), b"1-0")
    assert not table.busy.any()


def test_an_asset_without_a_row_is_asked_for_once(table, lease):
    holding, keeping = Holding(lease), Keeping(None, table, b"", Metrics())
    fill(table, holding, range(2))
    holding.codes_of([b"new", b"corrupt"])
    holding.quarantined.add(3)
    assert keeping.use(holding, np.array([2, 1, 3, 2])) == [2]
