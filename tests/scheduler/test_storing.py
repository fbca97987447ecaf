import pytest

from scheduler.errors import BadRules
from scheduler.storing import Storing, StoringRules, Unstored


def unstored(batches=16, ticks=2_000, rows=60, age_s=1.0, sweeping=False):
    return Unstored(batches, ticks, rows, age_s, sweeping)


def rich(**rules):
    """Rules under which as many rows as there may be at once have been earned."""
    made = Storing(StoringRules(**rules))
    made.shares([], 10_000_000, scarce=False)
    return made


@pytest.mark.parametrize(
    ("part", "share"),
    [
        (unstored(), {0: 60}),
        (unstored(batches=15), {}),  # too soon
        (unstored(batches=1, sweeping=True), {0: 60}),  # begun is begun
        (unstored(batches=1, ticks=65_536, rows=9_000), {0: 9_000}),  # too many to make again
        (unstored(batches=3, ticks=10, rows=10, age_s=3600.0), {}),  # an idle partition stores its states by itself
        (unstored(rows=0), {0: 0}),  # nothing has changed: then the stored states reflect it all
    ],
)
def test_states_wait_for_several_commits_unless_too_much_would_have_to_be_made_again(part, share):
    assert rich().shares([part], 100, scarce=False) == share


def test_states_go_with_each_commit_when_every_is_one():
    made = Storing(StoringRules(every=1))
    for ticks in (5, 1, 64):
        assert made.shares([unstored(1, ticks, ticks)], ticks, scarce=False) == {0: ticks}


def test_one_row_is_stored_for_so_many_ticks_and_the_rest_of_a_partition_later():
    made, left = Storing(StoringRules(every=16)), 1_000
    for batch in range(20):
        share = made.shares([unstored(16, 4_000, left, sweeping=batch > 0)], 400, scarce=False)
        assert share == {0: 50}
        left -= share[0]
    assert left == 0


def test_few_ticks_save_up_for_a_row():
    made = Storing(StoringRules(every=16))
    given = [made.shares([unstored()], 1, scarce=False) for _ in range(16)]
    assert given == 2 * (7 * [{}] + [{0: 1}])


def test_no_more_is_saved_up_than_goes_at_once():
    made = rich(rows_at_once=100)
    assert made.shares([unstored(rows=900)], 8, scarce=False) == {0: 100}
    assert made.shares([unstored(rows=800, sweeping=True)], 8, scarce=False) == {0: 1}


def test_late_states_go_before_they_are_earned_but_not_all_at_once():
    made = Storing(StoringRules(rows_at_once=100))
    late = [unstored(rows=80, age_s=30.0), unstored(rows=70, age_s=31.0)]
    assert made.shares(late, 1, scarce=False) == {1: 70, 0: 30}


def test_a_partition_that_has_begun_comes_first_then_the_one_whose_writes_serve_most():
    made = rich(rows_at_once=100)
    parts = [unstored(ticks=500), unstored(ticks=900), unstored(ticks=100, sweeping=True)]
    assert made.shares(parts, 8, scarce=False) == {2: 60, 1: 40}


def test_memory_that_is_scarce_is_freed_by_one_large_partition_after_the_other():
    """A partition comes with the rows of its newest ticks, or with all that it was not allowed to store."""
    made, rows, batches = Storing(StoringRules(rows_at_once=1_000)), [1_000] * 16, 0
    while any(left > 200 for left in rows):
        shares = made.shares([unstored(1, 5, left, 0.0) for left in rows], 5, scarce=True)
        rows = [left - shares.get(place, 0) + 5 for place, left in enumerate(rows)]
        batches += 1
    assert batches <= 18, "16 x 1,000 rows, 1,000 with each micro-batch, and each makes 80 more"


def test_what_would_take_too_long_to_make_again_is_stored_whatever_else_is():
    made = Storing(StoringRules(rows_at_once=100, ticks_max=10_000))
    parts = [unstored(ticks=10_000, rows=800), unstored(ticks=9_999, rows=800)]
    assert made.shares(parts, 1, scarce=False) == {0: 800}


@pytest.mark.parametrize("name", ["every", "ticks_max", "late_s", "rows_at_once"])
def test_rules_under_which_nothing_would_ever_be_stored_are_refused(name):
    with pytest.raises(BadRules, match=name):
        StoringRules(**{name: 0})
