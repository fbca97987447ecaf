"""The cut follows the cursor at the wanted distance, whatever the size of the commits."""

from hypothesis import given
from hypothesis import strategies as st

from state_store.retention import MARKS_MAX, advance, decode_marks, encode_marks


@given(st.lists(st.integers(1, 700), max_size=80), st.integers(0, 2000))
def test_the_cut_keeps_at_least_the_retention_and_not_much_more(sizes, keep):
    marks, applied, cut = (), 0, 0
    for size in sizes:
        applied += size
        marks, floor = advance(decode_marks(encode_marks(marks)), applied, b"%d-0" % applied, keep)
        if floor is not None:
            assert int(floor[:-2]) >= cut, "the cut never moves back"
            cut = int(floor[:-2])
        assert cut == 0 or applied - cut >= keep
        assert len(marks) <= MARKS_MAX + 3
    if applied:
        assert applied - cut <= keep + keep // MARKS_MAX + 2 * max(sizes) + 1
